"""Models with Brevitas layers: their scales and bits, as they are, on every target."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import brevitas.nn as qnn
import numpy as np
import pytest
import torch
from brevitas.quant import (
    Int8ActPerTensorFixedPoint,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFixedPoint,
    Int32Bias,
    ShiftedUint8ActPerTensorFloat,
    Uint8ActPerTensorFixedPoint,
    Uint8ActPerTensorFloat,
)
from torch import Tensor, nn

from edgemix import data, pipeline, sources, targets
from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.order import Order
from edgemix.program import Origin, Program
from edgemix.quantize.strip import strip
from edgemix.sources import brevitas
from edgemix.sources.base import SourceModel


def bits(kind: type, width: int) -> type:
    return type(kind.__name__, (kind,), {"bit_width": width})


def network(weights: type, values: type, positive: type, shape: int = 8) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=values, return_quant_tensor=True),
        qnn.QuantConv2d(1, 8, 3, stride=2, padding=1, weight_quant=weights, bias_quant=Int32Bias),
        qnn.QuantReLU(act_quant=positive, return_quant_tensor=True),
        nn.MaxPool2d(2),
        qnn.QuantConv2d(8, 16, 3, padding=1, weight_quant=weights, bias_quant=Int32Bias),
        qnn.QuantReLU(act_quant=positive, return_quant_tensor=True),
        nn.Flatten(),
        qnn.QuantLinear(
            16 * (shape // 4) ** 2,
            10,
            True,
            weight_quant=weights,
            bias_quant=Int32Bias,
            output_quant=values,
        ),
    )
    model.train()
    for _ in range(20):
        model(torch.rand(32, 1, shape, shape))
    return model.eval()


def power_of_two() -> tuple[nn.Module, Tensor]:
    """A factory, as the command line names one."""
    kinds = Int8WeightPerTensorFixedPoint, Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
    return network(bits(kinds[0], 4), *kinds[1:]), torch.rand(1, 1, 8, 8)


def traced(model: nn.Module, shape: int = 8) -> Program:
    return brevitas.trace(SourceModel(model, (torch.zeros(1, 1, shape, shape),), Origin("test")))


@pytest.mark.parametrize("width", range(2, 9))
@pytest.mark.parametrize(
    "weights", [Int8WeightPerChannelFloat, Int8WeightPerTensorFixedPoint], ids=["channel", "power"]
)
def test_scales_and_bits_are_preserved(weights: type, width: int) -> None:
    model = network(
        bits(weights, width), Int8ActPerTensorFloat, bits(Uint8ActPerTensorFloat, width)
    )
    program = traced(model)
    module = program.module()
    layers = [m for m in model.modules() if isinstance(m, (qnn.QuantConv2d, qnn.QuantLinear))]
    found = [n for n in module.graph.nodes if n.target in g.LINEAR]
    for layer, node in zip(layers, found, strict=True):
        weight = node.args[1]
        encoding = g.encoding_of(module, weight)
        coded = layer.quant_weight()
        assert encoding.scale == tuple(coded.scale.flatten().tolist())
        assert (encoding.axis == 0) is (len(encoding.scale) > 1)
        assert encoding.qmax == (1 << (width - 1)) - 1
        assert torch.equal(g.dequantized(module, weight), coded.value)
    relus = [m for m in model.modules() if isinstance(m, qnn.QuantReLU)]
    scales = {e.scale[0] for e in program.encodings.values() if e.bits == width}
    assert {float(r.act_quant.scale()) for r in relus} <= scales


@pytest.mark.parametrize(
    ("values", "positive"),
    [
        (Int8ActPerTensorFloat, Uint8ActPerTensorFloat),
        (Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint),
        (ShiftedUint8ActPerTensorFloat, ShiftedUint8ActPerTensorFloat),
        (bits(Int8ActPerTensorFloat, 3), bits(Uint8ActPerTensorFloat, 3)),
    ],
    ids=["float", "power", "shifted", "3 bits"],
)
@pytest.mark.parametrize("shape", [8, 12])
def test_outputs_are_brevitas_own_up_to_ties(values: type, positive: type, shape: int) -> None:
    model = network(bits(Int8WeightPerChannelFloat, 4), values, positive, shape)
    program = traced(model, shape)
    x = torch.rand(200, 1, shape, shape) * 1.5 - 0.25
    with torch.no_grad():
        expected = model(x)
    (encoding,) = program.output_encodings
    assert encoding is not None
    apart = np.abs(
        encoding.integers(expected.numpy()) - encoding.integers(program.run(x)[0].numpy())
    )
    assert apart.max() <= 1 and (apart > 0).mean() < 0.01


@pytest.mark.parametrize(
    "name",
    [
        "onnx",
        "hls4ml",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("tflite", "coreml", "rtl")),
    ],
)
def test_it_goes_to_every_target(
    name: str, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program = traced(power_of_two()[0])
    target = targets.load(name)
    assert target.supports(program) == ()
    artifact = target.lower(program, program_file(program), tmp_path)
    assert [op for op in target.audit(artifact, tmp_path) if not op.kept] == []
    x = torch.rand(64, 1, 8, 8)
    found = target.run(artifact, tmp_path, (x.numpy(),))
    assert found is not None
    (encoding,) = program.output_encodings
    assert encoding is not None
    expected = encoding.integers(program.run(x)[0].numpy())
    apart = np.abs(expected - encoding.integers(found[0]))
    # Core ML has 16 bits between the integers, which may move one; LiteRT rounds ties otherwise.
    assert apart.max() <= (1 if name in ("tflite", "coreml") else 0)


def test_it_is_deployed_as_it_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path(__file__).read_text()
    (tmp_path / "trained.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    order = Order(
        source="trained:power_of_two", targets=("onnx",), out=tmp_path / "out",
        evaluate="digits:heldout", evaluate_samples=50,
    )  # fmt: skip
    report = pipeline.deploy(order)
    assert report.calibration is None
    assert report.recipe == {"name": "as it came"}
    assert report.targets[0].fidelity is not None and report.targets[0].fidelity.passed
    again = Order(**{**order.__dict__, "source": str(tmp_path / "out/program.edgemix"), "out": tmp_path / "again"})  # fmt: skip
    assert pipeline.deploy(again).model.digest == report.model.digest
    for more in ({"recipe": "int8"}, {"quality": "fast"}):
        refused = Order(**{**order.__dict__, **more, "out": tmp_path / "no"})
        with pytest.raises(InputError, match="is quantized already\n  try: leave --recipe"):
            pipeline.deploy(refused)
    assert not (tmp_path / "no").exists()


def test_without_its_rounding_it_is_a_float_program() -> None:
    model, _ = power_of_two()
    program = traced(model)
    real = strip(program)
    assert not real.quantized and program.quantized
    x = data.load("digits:heldout", program.inputs[0]).tensor()[:50] / 16
    near, exact = program.run(x)[0], real.run(x)[0]
    assert 0 < float((near - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_what_has_no_counterpart_is_named() -> None:
    model = nn.Sequential()
    model.add_module("up", qnn.QuantConvTranspose2d(1, 1, 2))
    with pytest.raises(InputError, match="QuantConvTranspose2d has no counterpart"):
        traced(model)
    wide = network(
        bits(Int8WeightPerChannelFloat, 20), Int8ActPerTensorFloat, Uint8ActPerTensorFloat
    )
    with pytest.raises(InputError, match="it has 20 bits"):
        traced(wide)


def test_a_factory_with_brevitas_layers_comes_quantized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trained_too.py").write_text(Path(__file__).read_text())
    monkeypatch.chdir(tmp_path)
    assert sources.load("trained_too:power_of_two").quantized
    with pytest.raises(InputError, match="no step form yet"):
        sources.load("trained_too:power_of_two", step=True)
