"""What is found of a program's values."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix import diagnosis
from edgemix.program import Origin, Program


class Quotient(nn.Module):
    """A quotient behind an infinity that a comparison takes away again."""

    def forward(self, x: Tensor) -> Tensor:
        limited = torch.minimum(x, torch.full_like(x, torch.inf))
        return torch.relu(limited / x.sum(1, keepdim=True))


def test_the_first_operator_that_gives_no_number_is_named() -> None:
    program = Program.trace(Quotient(), (torch.ones(1, 3),), Origin("test"))
    good, zero, both = torch.ones(2, 3), torch.zeros(1, 3), torch.tensor([[1.0, -1.0, 0.0]])
    for samples in (torch.cat([good, zero]), both):
        where = diagnosis.undefined(program, samples)
        assert where is not None and where.node == "div"
        assert (where.source or "").startswith("test_diagnosis.py:")
    allowed = diagnosis.undefined(program, good)
    assert allowed is not None and allowed.node == "full_like"


def test_numbers_alone_are_nothing_to_tell() -> None:
    program = Program.trace(nn.Linear(3, 2), (torch.ones(1, 3),), Origin("test"))
    assert diagnosis.undefined(program, torch.randn(4, 3)) is None
