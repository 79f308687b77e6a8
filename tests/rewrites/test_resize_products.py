"""Resizes as products with the matrices that the operator itself gives."""

from __future__ import annotations

import pytest
import torch

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from tests.rewrites.calls import resize

ROUNDING = 16 * 2.0**-23
"""Of two sums of four products each, and of their weights, as a share of the largest result."""


CASES = {
    "up by a factor": {"scale_factor": 2.0},
    "up by two factors": {"scale_factor": (1.7, 2.3)},
    "factors that are computed anew": {"scale_factor": 1.7, "recompute_scale_factor": True},
    "to a size": {"size": (11, 4)},
    "with corners aligned": {"size": (3, 17), "align_corners": True},
    "to one value": {"size": (1, 1)},
    "to the same size": {"size": (5, 7)},
    "without aliasing": {"size": (3, 3), "antialias": True},
    "without aliasing, by factors": {"scale_factor": (0.6, 1.4), "antialias": True},
    "bilinear by a factor": {"scale_factor": 1.3, "mode": "bilinear"},
    "bilinear without aliasing": {"size": (2, 9), "antialias": True, "mode": "bilinear"},
}


@pytest.mark.parametrize("case", CASES)
def test_every_option_is_in_the_matrices(case: str, generator: torch.Generator) -> None:
    module = resize(**{"mode": "bicubic", **CASES[case]})
    x = torch.randn(2, 3, 5, 7, generator=generator)
    program = rewrites.standard(Program.trace(module, (x,), Origin("test")))
    assert {g.op_name(n) for n in g.float_ops(program.module())} == {"linear", "transpose"}
    (found,), expected = program.call(x), module(x)
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) <= ROUNDING * float(expected.abs().max())


def test_a_bilinear_resize_stays_as_it_is() -> None:
    """Every target has that operator, and it is cheaper than the products."""
    program = Program.trace(
        resize(scale_factor=2.0, mode="bilinear"), (torch.zeros(1, 3, 5, 7),), Origin("test")
    )
    assert rewrites.standard(program) is program
