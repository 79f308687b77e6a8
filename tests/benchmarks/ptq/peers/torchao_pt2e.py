"""torchao's PT2E as it comes: X86InductorQuantizer, min-max and histogram observers."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Its default configuration for x86; eight bits."""
    if bits != (8, 8):
        raise Refused("integers of 8 bits only")
    exported = torch.export.export(model, (calibration[:1],)).module(check_guards=False)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config())
    prepared = prepare_pt2e(exported, quantizer)
    for sample in calibration:
        prepared(sample[None])
    made = convert_pt2e(prepared)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.cat([made(s[None]) for s in x])

    return [Made(run, "convolutions and linear operators", False, "x86, histogram")]
