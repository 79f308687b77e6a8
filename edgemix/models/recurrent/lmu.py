"""Legendre memory: a sliding window of the past, compressed into polynomial coefficients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgemix.streaming.protocol import State, Stepwise, held, zeros


def legendre(order: int, window: float) -> tuple[Tensor, Tensor]:
    """The memory's matrices for steps of one, by zero-order hold: m' = m + Δ m + B u.

    Voelker, Kajić, Eliasmith, "Legendre Memory Units", NeurIPS 2019, equations 1 and 2, with
    Δ = exp(A / θ) − I: the change is what a quantizer should see, not the identity beside it.

    Args:
        order: polynomial coefficients d.
        window: its length θ, in steps.

    Returns:
        Δ [order, order] and B [order].
    """
    n = torch.arange(order, dtype=torch.float64)
    i, j = n[:, None], n[None, :]
    a = torch.where(i < j, -torch.ones_like(i * j), (-1.0) ** (i - j + 1)) * (2 * i + 1) / window
    b = ((2 * n + 1) * (-1.0) ** n / window)[:, None]
    # One exponential gives both: [[A, B], [0, 0]] is a system whose input is a state that rests.
    joint = torch.zeros(order + 1, order + 1, dtype=torch.float64)
    joint[:order, :order], joint[:order, order:] = a, b
    exact = torch.linalg.matrix_exp(joint)
    delta = exact[:order, :order] - torch.eye(order, dtype=torch.float64)
    return delta.float(), exact[:order, order].float()


class LegendreMemory(Stepwise):
    """Each channel's last θ steps as ``order`` Legendre coefficients; nothing is learned.

    Shape: [batch, time, channels] → [batch, time, channels · order].
    """

    delta: Tensor
    drive: Tensor

    def __init__(self, channels: int, order: int, window: float) -> None:
        super().__init__()
        self.channels, self.order = channels, order
        delta, drive = legendre(order, window)
        self.register_buffer("delta", delta)
        self.register_buffer("drive", drive)

    def initial_state(self, batch: int = 1) -> State:
        """``memory``: the coefficients of every channel."""
        return {"memory": zeros(batch, self.channels, self.order)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        memory = held(state, "memory")
        # The sum of both changes first: they are of one size, the memory is far larger.
        change = nn.functional.linear(memory, self.delta) + x[:, :, None] * self.drive
        memory = memory + change
        return memory.flatten(1), {"memory": memory}

    def forward(self, x: Tensor) -> Tensor:
        """By the Fourier transform: Chilkuri, Eliasmith, "Parallelizing LMU Training", 2021."""
        length = x.shape[1]
        size = 2 * length
        response = self.response(length)
        spectrum = (
            torch.fft.rfft(x, n=size, dim=1)[..., None]
            * torch.fft.rfft(response, n=size, dim=0)[None, :, None, :]
        )
        memory: Tensor = torch.fft.irfft(spectrum, n=size, dim=1)
        return memory[:, :length].flatten(2)

    def response(self, length: int) -> Tensor:
        """The memory after an impulse, [length, order]: Ā^t B̄, by doubling."""
        power = self.delta + torch.eye(self.order, dtype=self.delta.dtype)
        found = self.drive[None]
        for _ in range(math.ceil(math.log2(max(length, 2)))):
            found = torch.cat([found, found @ power.T])
            power = power @ power
        return found[:length]


class LMU(Stepwise):
    """u = tanh(U x), m' = Ā m + B̄ u, y = act(W_m m' + W_x x): the parallel LMU.

    Chilkuri, Eliasmith, "Parallelizing Legendre Memory Unit Training", ICML 2021, equations 18 to
    20: what the memory takes does not depend on the hidden state, so training needs no recurrence.

    Shape: [batch, time, dim] → [batch, time, hidden].
    """

    def __init__(
        self, dim: int, hidden: int, *, channels: int = 1, order: int = 8, window: float = 32.0
    ) -> None:
        super().__init__()
        self.encode = nn.Linear(dim, channels)
        self.memory = LegendreMemory(channels, order, window)
        self.mix = nn.Linear(channels * order + dim, hidden)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.memory.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        memory, after = self.memory.step(torch.tanh(self.encode(x)), state)
        return self._read(memory, x), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self._read(self.memory(torch.tanh(self.encode(x))), x)

    def _read(self, memory: Tensor, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.mix(torch.cat([memory, x], -1)))
        return result


class LMUCell(Stepwise):
    """The LMU as it was published, whose memory is driven by the hidden state too.

    u = e_x x + e_h h + e_m m,  m' = Ā m + B̄ u,  h' = tanh(W_x x + W_h h + W_m m').
    Voelker, Kajić, Eliasmith, "Legendre Memory Units", NeurIPS 2019, equations 6 and 7.

    Shape: [batch, time, dim] → [batch, time, hidden].
    """

    def __init__(self, dim: int, hidden: int, *, order: int = 8, window: float = 32.0) -> None:
        super().__init__()
        self.hidden = hidden
        self.memory = LegendreMemory(1, order, window)
        self.encode = nn.Linear(dim + hidden, 1, bias=False)
        self.recall = nn.Linear(order, 1, bias=False)
        self.mix = nn.Linear(dim + hidden + order, hidden)
        nn.init.zeros_(self.recall.weight)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {"hidden": zeros(batch, self.hidden), **self.memory.initial_state(batch)}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        seen = torch.cat([x, held(state, "hidden")], 1)
        recalled = self.recall(held(state, "memory").flatten(1))
        flat, after = self.memory.step(self.encode(seen) + recalled, state)
        hidden = torch.tanh(self.mix(torch.cat([seen, flat], 1)))
        return hidden, {"hidden": hidden, **after}
