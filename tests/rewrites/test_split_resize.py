"""Resizes in terms that fixed point has: wires, and products with constants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from tests.rewrites.calls import resize

ROUNDING = 16 * 2.0**-23
"""Of two sums of two products each, and of their weights, as a share of the largest result."""


def split(module: nn.Module, x: Tensor) -> tuple[Tensor, set[str]]:
    """What the program gives once its resizes are split, and its operators' names."""
    program = rewrites.standard(Program.trace(module, (x,), Origin("test")), ("resize",))
    return program.call(x)[0], {g.op_name(n) for n in g.float_ops(program.module())}


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact"])
@pytest.mark.parametrize(
    ("options", "operators"),
    [
        ({"scale_factor": 2}, "unsqueeze expand reshape"),
        ({"size": (15, 7)}, "unsqueeze expand reshape"),
        ({"size": (5, 7)}, "relu"),
        ({"size": (7, 3)}, "linear transpose"),
        ({"scale_factor": (1.7, 0.4)}, "linear transpose"),
        ({"size": (1, 1)}, "linear transpose"),
    ],
    ids=str,
)
def test_copies_are_wires(
    options: dict[str, Any], operators: str, mode: str, generator: torch.Generator
) -> None:
    module: nn.Module = resize(mode=mode, **options)
    x = torch.randn(2, 3, 5, 7, generator=generator)
    if operators == "relu":  # no output may be an input
        module = nn.Sequential(module, nn.ReLU())
    found, names = split(module, x)
    assert names == set(operators.split())
    assert torch.equal(found, module(x))


@pytest.mark.parametrize("corners", [False, True])
@pytest.mark.parametrize("size", [(10, 14), (3, 17), (1, 1)], ids=str)
def test_a_weighted_resize_is_two_products(
    size: tuple[int, int], corners: bool, generator: torch.Generator
) -> None:
    module = resize(mode="bilinear", size=size, align_corners=corners)
    x = torch.randn(2, 3, 5, 7, generator=generator)
    found, names = split(module, x)
    assert names == {"linear", "transpose"}
    expected = module(x)
    assert float((found - expected).abs().max()) <= ROUNDING * float(expected.abs().max())
