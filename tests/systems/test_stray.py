"""Programs against themselves when roundings go the other way."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.program import Origin, Program
from edgemix.systems.stray import strayed


class Doubling(nn.Module):
    """A logistic map, so many times over: each doubles a rounding."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = x * x / 16
        for _ in range(self.times):
            x = 4 * x * (1 - x)
        return x


def test_real_numbers_stray_as_far_as_a_model_blows_a_rounding_up() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    off = []
    for times in (1, 20):
        program = Program.trace(Doubling(times), (x[:1],), Origin("test"))
        off.append(float((strayed(program, x) - program.run(x)[0]).abs().max()))
    assert off[0] < 1e-6 < 1e-3 < off[1]
