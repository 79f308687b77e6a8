"""xLSTM's two cells: exponential gates, kept in range by a running maximum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.streaming.protocol import State, Stepwise, held, zeros


def _latest(decayed: Tensor, gate: Tensor) -> Tensor:
    """max(decayed, gate), as a sum: the running maximum is a state, and states are sums."""
    return gate + torch.relu(decayed - gate)


class SLSTM(Stepwise):
    """One cell a channel, its gates fed by the last output too.

        m' = max(log f + m, i),  c' = e^(log f + m − m') c + e^(i − m') tanh(z),
        n' = e^(log f + m − m') n + e^(i − m'),  h' = sigmoid(o) c' / n'

    with f = sigmoid(f̃). Beck et al., "xLSTM: Extended Long Short-Term Memory", NeurIPS 2024,
    equations 8 to 17. The normalizer starts at one, so that nothing is divided by zero.

    Shape: [batch, time, dim] → [batch, time, hidden].
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Linear(dim + hidden, 4 * hidden)

    def initial_state(self, batch: int = 1) -> State:
        """``hidden`` h, ``cell`` c, ``normalizer`` n, ``peak`` m."""
        return {
            "hidden": zeros(batch, self.hidden), "cell": zeros(batch, self.hidden),
            "normalizer": torch.ones(batch, self.hidden), "peak": zeros(batch, self.hidden),
        }  # fmt: skip

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        seen = torch.cat([x, held(state, "hidden")], 1)
        i, f, z, o = self.gates(seen).chunk(4, 1)
        decayed = held(state, "peak") - functional.softplus(-f)
        peak = _latest(decayed, i)
        keep, take = torch.exp(decayed - peak), torch.exp(i - peak)
        cell = keep * held(state, "cell") + take * torch.tanh(z)
        normalizer = keep * held(state, "normalizer") + take
        hidden = torch.sigmoid(o) * (cell / normalizer)
        return hidden, {"hidden": hidden, "cell": cell, "normalizer": normalizer, "peak": peak}


class MLSTM(Stepwise):
    """A matrix memory that keys write to and queries read from.

        m' = max(log f + m, i),  C' = e^(log f + m − m') C + e^(i − m') v kᵀ,
        n' = e^(log f + m − m') n + e^(i − m') k,  h = sigmoid(o) C' q / max(|n' · q|, 1)

    Beck et al., "xLSTM: Extended Long Short-Term Memory", NeurIPS 2024, equations 19 to 27.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim
        self.qkv = nn.Linear(dim, 3 * dim)
        self.gates = nn.Linear(dim, 2)
        self.open = nn.Linear(dim, dim)

    def initial_state(self, batch: int = 1) -> State:
        """``memory`` C, ``normalizer`` n, ``peak`` m."""
        return {
            "memory": zeros(batch, self.dim, self.dim),
            "normalizer": zeros(batch, self.dim),
            "peak": zeros(batch, 1),
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        q, k, v = self.qkv(x).chunk(3, 1)
        k = k * self.dim**-0.5
        i, f = self.gates(x).chunk(2, 1)
        decayed = held(state, "peak") - functional.softplus(-f)
        peak = _latest(decayed, i)
        keep, take = torch.exp(decayed - peak), torch.exp(i - peak)
        stored = (take * v)[:, :, None] * k[:, None, :]
        memory = keep[:, :, None] * held(state, "memory") + stored
        normalizer = keep * held(state, "normalizer") + take * k
        read = (memory @ q[:, :, None])[:, :, 0]
        size = torch.clamp((normalizer * q).sum(1, keepdim=True).abs(), min=1.0)
        y = torch.sigmoid(self.open(x)) * (read / size)
        return y, {"memory": memory, "normalizer": normalizer, "peak": peak}
