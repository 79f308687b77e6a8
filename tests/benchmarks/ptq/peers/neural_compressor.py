"""Intel's neural-compressor: static quantization of the torch model, its 3.x interface."""

from __future__ import annotations

from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Refused: its interface for torch does not import beside this torch without more packages."""
    try:
        from neural_compressor.torch.quantization import (  # type: ignore[import-not-found]
            StaticQuantConfig,
            convert,
            prepare,
        )
    except ImportError as error:
        raise Refused(f"it cannot be imported: {error}") from error
    if bits != (8, 8):
        raise Refused("integers of 8 bits only")
    prepared = prepare(model, quant_config=StaticQuantConfig(), example_inputs=calibration[:1])
    for sample in calibration:
        prepared(sample[None])
    made = convert(prepared)
    what = "operators that its CPU backend has integer kernels for"
    return [Made(lambda x: made(x), what, False, "static")]
