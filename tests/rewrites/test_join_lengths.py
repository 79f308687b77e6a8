"""Vectors over their lengths, as norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program

ROUNDING = 8 * 2.0**-23
"""Of a sum of squares, its root and a quotient; no result is above one."""


class Normalized(nn.Module):
    def __init__(self, axis: int, epsilon: float = 1e-12) -> None:
        super().__init__()
        self.axis, self.epsilon = axis, epsilon

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.normalize(x, dim=self.axis, eps=self.epsilon)


class ByHand(nn.Module):
    """Without a limit, and with the root's axes kept by a keyword."""

    def forward(self, x: Tensor) -> Tensor:
        return x / x.norm(dim=-1, keepdim=True)


def rewritten(module: nn.Module, x: Tensor) -> tuple[Tensor, list[str]]:
    program = rewrites.standard(Program.trace(module, (x,), Origin("test")))
    return program.call(x)[0], [g.op_name(n) for n in g.float_ops(program.module())]


@pytest.mark.parametrize("axis", [-1, 1, 2])
def test_a_vector_over_its_length_is_a_norm(axis: int, generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 7, generator=generator)
    x[0, :, 0, 0] = x[0, 0, :, 0] = x[0, 0, 0] = 0.0
    module = Normalized(axis)
    found, names = rewritten(module, x)
    turn = [] if axis == -1 else ["transpose"]
    assert names == [*turn, "rms_norm", *turn]
    assert float((found - module(x)).abs().max()) <= ROUNDING
    assert float(found[0, 0, 0, 0]) == 0.0


def test_short_vectors_keep_their_directions() -> None:
    x = torch.tensor([[3e-6, 4e-6], [3e-18, 4e-18]])
    found, names = rewritten(ByHand(), x)
    assert names == ["rms_norm"]
    assert float((found[0] - torch.tensor([0.6, 0.8])).abs().max()) <= ROUNDING


def test_a_limit_that_ordinary_vectors_meet_stays_a_limit() -> None:
    x = torch.tensor([[0.3, 0.4]])
    found, names = rewritten(Normalized(-1, epsilon=1.0), x)
    assert "linalg_vector_norm" in names
    assert torch.equal(found, x)


class OtherLengths(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        longest = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True)
        others = torch.linalg.vector_norm(x + 1.0, 2, -1, keepdim=True)
        both = torch.linalg.vector_norm(x, 2, (-2, -1), keepdim=True)
        return x / longest, x / others, x / both


def test_other_lengths_stay(generator: torch.Generator) -> None:
    x = torch.rand(2, 3, 4, generator=generator) + 0.5
    program = rewrites.standard(Program.trace(OtherLengths(), (x,), Origin("test")))
    assert "rms_norm" not in {g.op_name(n) for n in g.float_ops(program.module())}
