"""Layer normalization by all that has come so far."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.streaming.protocol import State, Stepwise, held, zeros


class CumulativeNorm(Stepwise):
    """y_t = γ (x_t − m_t) / √(s_t + ε) + β, mean m and variance s over all channels and steps ≤ t.

    Luo, Mesgarani, "Conv-TasNet", 2019, where it is called cLN. A sum over all steps would outgrow
    any range; the memory holds the mean, the variance and the share w of the next step, 1 / t:

        m' = m + w (avg(x) − m),  s' = s + w (avg((x − m)(x − m')) − s),  w' = w / (1 + w)

    On a grid w stops a few steps above zero, and the sums become running averages from there on.

    Shape: [batch, time, channels] → [batch, time, channels].
    """

    def __init__(self, channels: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def initial_state(self, batch: int = 1) -> State:
        """``mean`` m, ``variance`` s, ``share`` w, which starts at one."""
        share = torch.ones(batch, 1)
        return {"mean": zeros(batch, 1), "variance": zeros(batch, 1), "share": share}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        mean, variance, share = (held(state, name) for name in ("mean", "variance", "share"))
        before = x - mean
        mean = mean + share * before.mean(-1, keepdim=True)
        after = x - mean
        variance = variance + share * ((before * after).mean(-1, keepdim=True) - variance)
        state = {"mean": mean, "variance": variance, "share": share / (1.0 + share)}
        return self._scaled(after, variance), state

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        count = torch.arange(1, x.shape[1] + 1, dtype=x.dtype, device=x.device)[:, None]
        mean = x.mean(-1, keepdim=True).cumsum(1) / count
        power = (x * x).mean(-1, keepdim=True).cumsum(1) / count
        return self._scaled(x - mean, power - mean * mean)

    def _scaled(self, x: Tensor, variance: Tensor) -> Tensor:
        # Rounded, a variance near zero may fall below it.
        return x * torch.rsqrt(torch.relu(variance) + self.eps) * self.weight + self.bias
