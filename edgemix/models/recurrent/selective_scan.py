"""The selective scan: a diagonal state space whose steps and couplings depend on the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SelectiveScan(nn.Module):
    """S6, along the last axis but one.

    Gu, Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2:

        Δ = softplus(W_Δ x),  B = W_B x,  C = W_C x
        h_t = exp(Δ A) h_{t−1} + Δ B x,  y = C h_t + D x

    Shape: [..., time, dim] → [..., time, dim].

    Args:
        dim: features, each with a state of its own.
        states: numbers that the state of a feature has.
        rank: of W_Δ, which is a product of two matrices.
    """

    def __init__(self, dim: int, *, states: int, rank: int) -> None:
        super().__init__()
        self.states, self.rank = states, rank
        self.select = nn.Linear(dim, rank + 2 * states, bias=False)
        self.rate = nn.Linear(rank, dim)
        decay = torch.arange(1, states + 1, dtype=torch.float32).repeat(dim, 1)
        self.log_decay = nn.Parameter(decay.log())
        self.skip = nn.Parameter(torch.ones(dim))
        # Steps between 1/1000 and 1/10, as the paper starts with.
        steps = torch.exp(torch.linspace(0, 1, dim) * 4.6 - 6.9)
        with torch.no_grad():
            self.rate.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        decay, drive, read = self.selected(x)
        return self.read(linear_recurrence(decay, drive, -3), read, x)

    def selected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """exp(Δ A) and Δ B x, both [..., dim, states], and C [..., states]."""
        rank, write, read = self.select(x).split([self.rank, self.states, self.states], -1)
        rate = functional.softplus(self.rate(rank))
        decay = torch.exp(-rate[..., None] * torch.exp(self.log_decay))
        return decay, (rate * x)[..., None] * write[..., None, :], read

    def read(self, h: Tensor, read: Tensor, x: Tensor) -> Tensor:
        """C h + D x, [..., dim]."""
        return (h @ read[..., None])[..., 0] + x * self.skip


def linear_recurrence(decay: Tensor, drive: Tensor, axis: int) -> Tensor:
    """h_t = decay_t h_{t−1} + drive_t along an axis, with h = 0 before the start.

    The associative scan by doubling (Hillis, Steele, "Data Parallel Algorithms", 1986): what lies
    2^k steps back is added at the k-th level. For T steps that is log₂ T levels of six operators,
    where an unrolled loop has T of four, and no division nor logarithm that a grid would be poor
    at; it costs at most 2 T log₂ T multiplications for every element of h where the loop has T.

    Shape: [..., time, ...], twice → the same.
    """
    time, reach, past = drive.shape[axis], 1, decay.narrow(axis, 1, decay.shape[axis] - 1)
    while reach < time:
        rest = time - reach
        # ``past`` is the product of the last ``reach`` decays, for every step that has so many.
        late = drive.narrow(axis, reach, rest) + past * drive.narrow(axis, 0, rest)
        drive = torch.cat([drive.narrow(axis, 0, reach), late], axis)
        if 2 * reach < time:
            count = time - 2 * reach
            past = past.narrow(axis, reach, count) * past.narrow(axis, 0, count)
        reach *= 2
    return drive
