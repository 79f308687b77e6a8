"""Pools without a stride move by their window."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply
from tests.rewrites.calls import Call


@pytest.mark.parametrize(
    ("pool", "windows"),
    [
        (lambda x: F.max_pool2d(x, 2), ([2, 2], [2, 2])),
        (lambda x: F.avg_pool2d(x, (3, 2), padding=1), ([3, 2], [3, 2], [1, 1])),
        (lambda x: F.max_pool2d(x, 3, 2), ([3, 3], [2, 2])),
    ],
)
def test_strides_are_written_down(pool: Callable[[Tensor], Tensor], windows: object) -> None:
    program = Program.trace(Call(pool), (torch.randn(1, 2, 9, 8),), Origin("a test"))
    after = apply(program, rewrites.load("implicit_strides"))
    (node,) = (n for n in after.module().graph.nodes if n.op == "call_function")
    assert node.args[1:] == windows
    x = torch.randn(1, 2, 9, 8)
    assert torch.equal(after.run(x)[0], program.run(x)[0])
