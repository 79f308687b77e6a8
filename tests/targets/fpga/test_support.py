"""What FPGA targets refuse, and the tables and types that both compute by."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import targets
from edgemix.encoding import Encoding
from edgemix.program import Program
from edgemix.targets.fpga import tables
from edgemix.targets.fpga.precision import bounds, exact_type, product_sum


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, -1)


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4000, 100)
        self.second = nn.Linear(100, 5001)
        self.third = nn.Linear(5001, 700)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(self.second(self.first(x)))


@pytest.mark.parametrize(("name", "title"), [("hls4ml", "hls4ml"), ("rtl", "RTL")])
def test_an_operator_without_a_layer_is_named(
    name: str, title: str, quantize_by: Callable[..., Program]
) -> None:
    program = quantize_by(Sorting(), torch.randn(8, 5), "fixed8")
    (finding,) = targets.load(name).supports(program)
    assert str(finding).startswith("cumsum (test_support.py:")
    assert f"{title} has no layer for cumsum" in finding.why


@pytest.mark.parametrize(("name", "limit"), [("hls4ml", "4,000,000"), ("rtl", "200,000")])
def test_a_model_that_would_explode_is_refused_before_anything_is_generated(
    name: str, limit: str, quantize_by: Callable[..., Program]
) -> None:
    program = quantize_by(Wide(), torch.randn(4, 4000), "fixed8")
    (finding,) = targets.load(name).supports(program)
    assert finding.why.startswith("unrolled it needs 4,400,800 multiply-accumulates")
    assert f"{limit} are the limit; most in linear_2 (third, " in finding.why
    assert finding.why.endswith(": 3,500,700")
    assert finding.remedy == "make the model or its input smaller"


def test_a_float_program_is_refused(float_program: Program) -> None:
    for name in ("hls4ml", "rtl"):
        (finding,) = targets.load(name).supports(float_program)
        assert finding.remedy == "quantize with the recipe fixed8"


def test_scales_that_are_no_powers_of_two_are_named(quantized: Callable[[str], Program]) -> None:
    findings = targets.load("rtl").supports(quantized("int8"))
    assert findings
    assert all("is no power of two" in f.why or "RTL has no" in f.why for f in findings)


def test_entries_near_a_tie_are_counted(quantize_by: Callable[..., Program]) -> None:
    program = quantize_by(nn.Sigmoid(), torch.randn(64, 11), "fixed8")
    module = program.module()
    node = next(n for n in module.graph.nodes if n.name == "sigmoid")
    given = Encoding.per_tensor(2**-4)
    exact = torch.sigmoid(torch.tensor(3 * 2**-4, dtype=torch.float64)).item()
    for offset, near in ((1e-5, 1), (1e-2, 0)):
        # A scale that puts this entry so many steps beside a tie.
        wanted = Encoding((exact / (100.5 + offset),), (0,))
        assert tables.table(module, node, given, wanted).near_ties == near


def test_accumulators_hold_the_worst_case_and_no_bit_more_than_needed() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        inputs = Encoding.per_tensor(2.0 ** generator.integers(-9, 2), -128).fixed_point()
        assert inputs is not None
        weights = generator.integers(-127, 128, (3, 9)) * 2.0 ** generator.integers(-9, 2)
        biases = generator.integers(-999, 999, 3) * 2.0 ** generator.integers(-12, 1)
        accumulator = product_sum(inputs, weights, biases)
        low, high = bounds(accumulator)
        worst = np.abs(weights).sum(1) * bounds(inputs)[1] + np.abs(biases)
        assert high >= worst.max() - 2.0**-accumulator.fraction
        assert low <= -worst.max()
        assert worst.max() * 4 > high


def test_constants_get_the_narrowest_type() -> None:
    fixed = exact_type(np.array([0.75, -2.0, 0.0]))
    assert (fixed.width, fixed.integer) == (4, 2)
    assert exact_type(np.zeros(3)).width == 2
    assert exact_type(np.array([96.0])).fraction == -5
