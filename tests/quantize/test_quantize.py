"""Calibration and quantization of whole programs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemix import data, diagnosis, rewrites, targets
from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import LayerException, Recipe


class Logarithm(nn.Module):
    """NaN below zero, at a line that the message should name."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x - 0.5) * 2


def test_every_operator_is_quantized_and_nothing_stays_float(
    quantized: Callable[[str], Program],
) -> None:
    for recipe in ("int8", "fixed8"):
        assert diagnosis.left_float(quantized(recipe)) == ()


def test_fixed8_holds_fixed_point_values_only(quantized: Callable[[str], Program]) -> None:
    program = quantized("fixed8")
    activations = [e for e in program.encodings.values() if e.axis is None]
    assert len(activations) > 30
    assert all(e.fixed_point() is not None for e in activations)


def test_biases_lie_on_the_grid_of_the_products(quantized: Callable[[str], Program]) -> None:
    module = quantized("int8").module()
    checked = 0
    for node in module.graph.nodes:
        if node.target in g.LINEAR:
            x, weight, bias = (g.encoding_of(module, a) for a in node.args[:3])
            assert bias.dtype == "int32"
            expected = torch.tensor(weight.scale) * x.lsb
            assert torch.allclose(torch.tensor(bias.scale), expected, rtol=1e-6)
            checked += 1
    assert checked == 10


def test_accuracy_costs_at_most_half_a_point(
    float_program: Program, quantized: Callable[[str], Program], held_out: data.Data
) -> None:
    x, y = torch.from_numpy(held_out.samples), torch.from_numpy(held_out.labels)

    def accuracy(program: Program) -> float:
        return float((program.run(x)[0].argmax(1) == y).double().mean())

    reached = accuracy(float_program)
    assert reached >= 0.97
    for recipe in ("int8", "fixed8"):
        assert reached - accuracy(quantized(recipe)) <= 0.005 + 1e-9, recipe


def test_batches_hardly_change_a_calibration(float_program: Program) -> None:
    """Sums of a larger batch are added in another order: the last bits of floats differ."""
    program = rewrites.standard(float_program)
    train = data.digits("train")
    ones = calibrate(program, train.batches(1, 30))
    tens = calibrate(program, train.batches(10, 30))
    assert ones.data == tens.data
    for name, stats in ones.stats.items():
        other = tens.stats[name]
        assert stats.count == other.count
        assert stats.maximum == pytest.approx(other.maximum, rel=1e-5, abs=1e-5)
        moved = float((stats.counts - other.counts).abs().sum()) / 2
        assert moved <= 0.01 * stats.count


def test_a_saved_calibration_gives_the_same_program(float_program: Program, tmp_path: Path) -> None:
    program = rewrites.standard(float_program)
    calibration = calibrate(program, data.digits("train").batches(10, 20))
    path = tmp_path / "calibration.safetensors"
    calibration.save(path)
    again = Calibration.load(path)
    assert (again.program, again.data) == (calibration.program, calibration.data)
    recipe = Recipe.load("int8")
    assert quantize(program, again, recipe).digest == quantize(program, calibration, recipe).digest


def test_a_damaged_calibration_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.safetensors"
    with pytest.raises(InputError, match="there is no calibration"):
        Calibration.load(path)
    path.write_bytes(b"\0" * 100)
    with pytest.raises(InputError, match="is no calibration, or it is damaged"):
        Calibration.load(path)


def test_a_calibration_of_another_program_is_refused(float_program: Program) -> None:
    program = rewrites.standard(float_program)
    calibration = calibrate(program, data.digits("train").batches(10, 10))
    other = dataclasses.replace(calibration, program="0" * 64)
    with pytest.raises(InputError, match="belongs to another program"):
        quantize(program, other, Recipe.load("int8"))


def test_a_node_that_computes_nan_is_named() -> None:
    program = Program.trace(Logarithm(), (torch.ones(1, 4),), Origin("test"))
    with pytest.raises(
        InputError, match=r"computes NaN or Inf .*\n  at: log \(.*test_quantize.py:\d+\)"
    ):
        calibrate(program, [torch.zeros(1, 4)])


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        (torch.zeros(2, 1, 8, 7), r"shape \(1, 8, 7\), the program takes \(1, 8, 8\)"),
        (
            torch.zeros(2, 1, 8, 8, dtype=torch.float64),
            "are torch.float64, the program takes float32",
        ),
        (torch.full((2, 1, 8, 8), torch.inf), "sample 0 holds NaN or Inf"),
    ],
)
def test_batches_that_do_not_fit(float_program: Program, batch: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message):
        calibrate(float_program, [batch])


def test_no_data_and_a_quantized_program(
    float_program: Program, quantized: Callable[[str], Program]
) -> None:
    with pytest.raises(InputError, match="there is no calibration data"):
        calibrate(float_program, [])
    with pytest.raises(InputError, match="is quantized already"):
        calibrate(quantized("int8"), [torch.zeros(1, 1, 8, 8)])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"\nbits = 8', "bits: Extra inputs are not permitted"),
        ('name = "x"\n[weights]\nobserver = "median"', "weights.observer: Input should be"),
        ("name = ", "is not TOML"),
        ("", "name: Field required"),
    ],
)
def test_recipes_with_mistakes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        Recipe.load(str(path))


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(
        InputError, match="there is no recipe int9\n  try: use fixed-auto, fixed8, .* or a .toml"
    ):
        Recipe.load("int9")


class Layers(nn.Module):
    """Two layers with paths of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).softmax(-1))


def test_exceptions_give_layers_widths_of_their_own(quantize_by: Callable[..., Program]) -> None:
    torch.manual_seed(0)
    exceptions = (
        LayerException(match="*", weights=6),
        LayerException(match="hea[d]", weights=3, activations=12),
    )
    program = quantize_by(Layers(), torch.randn(40, 6), "fixed8", exceptions=exceptions)
    module, bits = program.module(), program.encodings
    first, head = (n for n in g.float_ops(module) if g.op_name(n) == "linear")
    weights = [g.encoding_of(module, node.args[1]) for node in (first, head)]
    assert [w.bits for w in weights] == [6, 3]  # the last exception that matches counts
    assert (bits[first.name].bits, bits[head.name].bits) == (8, 12)
    # What is divided by spans more octaves, and so does its reciprocal.
    assert {bits[n.name].bits for n in g.float_ops(module) if g.op_name(n) == "reciprocal"} == {10}


def test_kernels_of_phones_have_eight_bits(quantize_by: Callable[..., Program]) -> None:
    exceptions = (LayerException(match="head", activations=12),)
    program = quantize_by(Layers(), torch.randn(40, 6), "fixed8", exceptions=exceptions)
    assert targets.load("onnx").supports(program) == ()
    for name, title in (("tflite", "TFLite"), ("coreml", "Core ML")):
        # The softmax is whole there: of its ten-bit divisor they never hear.
        (finding,) = targets.load(name).supports(program)
        assert str(finding).startswith("linear_1 (head, test_quantize.py:")
        assert finding.why == f"it has 12 bits, {title}'s kernels have 8"
        assert finding.remedy == "quantize with the recipe int8"
