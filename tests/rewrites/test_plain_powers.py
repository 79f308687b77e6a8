"""Second powers are products."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgemix.graph import op_name
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply
from edgemix.rewrites.plain_powers import PlainPowers


class Powers(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        powers = {"square": x.square(), "two": x**2, "real": x**2.0, "three": x**3}
        return powers[self.kind] + 1


@pytest.mark.parametrize(
    ("kind", "becomes"),
    [("square", "mul"), ("two", "mul"), ("real", "mul"), ("three", "pow")],
)
def test_second_powers_become_products_and_others_stay(kind: str, becomes: str) -> None:
    x = torch.tensor([[-3.0, -1e-20, 0.0, 0.5, 1e20]]).abs()
    before = Program.trace(Powers(kind), (x,), Origin(kind))
    after = apply(before, PlainPowers())
    names = {op_name(n) for n in after.module().graph.nodes if n.op == "call_function"}
    assert becomes in names and len(names) == 2
    assert torch.equal(after.run(x)[0], before.run(x)[0])
