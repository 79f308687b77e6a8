"""Expansions that arithmetic does by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from tests.rewrites.calls import Call


def operators(function: Callable[[Tensor], Tensor]) -> set[str]:
    """Of the rewritten program, which gives what the function gives."""
    x = torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    program = rewrites.standard(Program.trace(Call(function), (x,), Origin("test")))
    assert torch.equal(program.call(x)[0], function(x))
    return {g.op_name(n) for n in g.float_ops(program.module())}


def share(x: Tensor) -> Tensor:
    """[2, 3, 4, 1]"""
    return x.amax(-1, keepdim=True)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * share(x).expand(2, 3, 4, 5),
        lambda x: x - share(x).expand_as(x),
        lambda x: share(x).expand(-1, -1, -1, 5) + x,
        lambda x: x + x.amax((0, 2, 3)).reshape(3, 1, 1).expand(2, 3, 4, 5),
        lambda x: x.mT * share(x).expand_as(x).permute(0, 1, 3, 2),
        lambda x: x.permute(3, 0, 1, 2) * share(x).expand_as(x).transpose(2, 3).permute(2, 0, 1, 3),
    ],
)
def test_arithmetic_broadcasts(function: Callable[[Tensor], Tensor]) -> None:
    assert "expand" not in operators(function)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: share(x).expand_as(x),
        lambda x: torch.cat([x, share(x).expand_as(x)]),
        lambda x: share(x).expand_as(x) * share(x + 1),
        lambda x: share(x).expand_as(x) * share(x).expand_as(x),
        lambda x: x * share(x).expand_as(x) + share(x).expand_as(x).softmax(-1),
    ],
)
def test_what_has_to_be_of_that_shape_is_expanded(function: Callable[[Tensor], Tensor]) -> None:
    assert "expand" in operators(function)
