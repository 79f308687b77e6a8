"""A running average: what has been heard so far, the latest most."""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.streaming.protocol import State, Stepwise, held, zeros


class RunningAverage(Stepwise):
    """a' = a + λ (x − a), from zero; λ = 1 / window.

    Shape: [batch, time, features] → [batch, time, features].
    """

    def __init__(self, features: int, window: float = 16.0) -> None:
        super().__init__()
        self.features, self.rate = features, 1.0 / window

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {"average": zeros(batch, self.features)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        average = held(state, "average")
        average = average + self.rate * (x - average)
        return average, {"average": average}

    def forward(self, x: Tensor) -> Tensor:
        """As one matrix over time: row t has λ (1 − λ)^(t − s) at s ≤ t."""
        at = torch.arange(x.shape[1], device=x.device)
        age = (at[:, None] - at[None]).clamp(min=0)
        kernel = self.rate * torch.pow(torch.tensor(1.0 - self.rate), age)
        return torch.tril(kernel) @ x
