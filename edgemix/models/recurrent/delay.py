"""A step later: what a causal convolution is to be added to."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from edgemix.streaming.protocol import State, Stepwise, held, zeros


class Delay(Stepwise):
    """y_t = x_{t−1}, zero at the start.

    A convolution of three taps around the present is, heard a step later, a causal one; what it is
    added to then has to come a step later too.

    Shape: [batch, time, features] → [batch, time, features].
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.features = features

    def initial_state(self, batch: int = 1) -> State:
        """``last``: the input of the step before."""
        return {"last": zeros(batch, self.features)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        return held(state, "last"), {"last": x}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return functional.pad(x[:, :-1], (0, 0, 1, 0))
