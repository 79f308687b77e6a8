"""Matrix products with a constant, as linear operators."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe


class Product(nn.Module):
    def __init__(self, weight: Tensor, left: bool) -> None:
        super().__init__()
        self.weight, self.left = nn.Parameter(weight), left

    def forward(self, x: Tensor) -> Tensor:
        return self.weight @ x if self.left else x @ self.weight


CASES = {
    "behind": ((1, 4, 3), (3, 6), False, {"linear"}),
    "before": ((1, 4, 3), (6, 4), True, {"conv1d"}),
    "before a map": ((1, 2, 4, 3), (6, 4), True, {"linear", "transpose"}),
    "for every head": ((1, 2, 4, 3), (2, 3, 5), False, {"transpose", "reshape", "conv1d"}),
    "for one head": ((1, 2, 4, 3), (1, 3, 5), False, {"linear"}),
    "a vector": ((1, 4, 3), (3,), False, {"linear", "reshape"}),
    "a vector before": ((1, 4, 3), (4,), True, {"conv1d", "reshape"}),
}


@pytest.mark.parametrize("case", CASES)
def test_a_constant_is_a_weight(case: str, generator: torch.Generator) -> None:
    shape, weight, left, expected = CASES[case]
    module = Product(torch.randn(weight, generator=generator), left)
    x = torch.randn(shape, generator=generator)
    program = rewrites.standard(Program.trace(module, (x,), Origin("test")))
    assert {g.op_name(n) for n in g.float_ops(program.module())} == expected
    torch.testing.assert_close(program.call(x)[0], module(x).detach())


def test_its_weights_are_quantized_per_channel(generator: torch.Generator) -> None:
    module = Product(torch.randn(3, 6, generator=generator), left=False)
    program = rewrites.standard(Program.trace(module, (torch.zeros(1, 4, 3),), Origin("test")))
    calibration = calibrate(program, [torch.randn(8, 4, 3, generator=generator)])
    quantized = quantize(program, calibration, Recipe.load("int8")).module()
    (linear,) = [n for n in g.float_ops(quantized) if g.op_name(n) == "linear"]
    assert len(g.encoding_of(quantized, linear.args[1]).scale) == 6


def test_a_product_of_two_values_stays(generator: torch.Generator) -> None:
    class Scores(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x @ x.transpose(1, 2)

    program = Program.trace(Scores(), (torch.zeros(1, 4, 3),), Origin("test"))
    assert rewrites.standard(program) is program
