"""Mamba: a state space whose step sizes and couplings depend on the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.streaming.protocol import State, Stepwise, held, part, zeros


class Mamba(Stepwise):
    """Short convolution, selective scan, gate.

    Gu, Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, algorithm 2
    and figure 3:

        x, z = W x;  x ← silu(conv(x));  Δ = softplus(W_Δ x),  B = W_B x,  C = W_C x
        h' = exp(Δ A) h + Δ B x,  y = C h' + D x,  result = W_o (y · silu(z))

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(
        self,
        dim: int,
        *,
        expand: int = 2,
        states: int = 8,
        kernel: int = 4,
        rank: int | None = None,
    ) -> None:
        super().__init__()
        inner = expand * dim
        self.inner, self.states, self.rank = inner, states, rank or max(1, dim // 16)
        self.enter = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CausalConv(inner, kernel, depthwise=True)
        self.select = nn.Linear(inner, self.rank + 2 * states, bias=False)
        self.rate = nn.Linear(self.rank, inner)
        decay = torch.arange(1, states + 1, dtype=torch.float32).repeat(inner, 1)
        self.log_decay = nn.Parameter(decay.log())
        self.skip = nn.Parameter(torch.ones(inner))
        self.leave = nn.Linear(inner, dim, bias=False)
        # Steps between 1/1000 and 1/10, as the paper starts with.
        steps = torch.exp(torch.linspace(0, 1, inner) * 4.6 - 6.9)
        with torch.no_grad():
            self.rate.bias.copy_(steps + torch.log(-torch.expm1(-steps)))

    def initial_state(self, batch: int = 1) -> State:
        """``conv``: the short convolution's; ``scan``: h [batch, inner, states]."""
        return {
            "conv": self.conv.initial_state(batch),
            "scan": zeros(batch, self.inner, self.states),
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        x, z = self.enter(x).chunk(2, -1)
        x, conv = self.conv.step(x, part(state, "conv"))
        x = functional.silu(x)
        decay, drive, read = self._selected(x)
        scan = decay * held(state, "scan") + drive
        return self._left(scan, read, x, z), {"conv": conv, "scan": scan}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, z = self.enter(x).chunk(2, -1)
        x = functional.silu(self.conv(x))
        decay, drive, read = self._selected(x)
        scan, found = zeros(len(x), self.inner, self.states), []
        for t in range(x.shape[1]):
            scan = decay[:, t] * scan + drive[:, t]
            found.append(scan)
        return self._left(torch.stack(found, 1), read, x, z)

    def _selected(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """exp(Δ A) and Δ B x, both [..., inner, states], and C [..., states]."""
        rank, write, read = self.select(x).split([self.rank, self.states, self.states], -1)
        rate = functional.softplus(self.rate(rank))
        decay = torch.exp(-rate[..., None] * torch.exp(self.log_decay))
        return decay, (rate * x)[..., None] * write[..., None, :], read

    def _left(self, scan: Tensor, read: Tensor, x: Tensor, z: Tensor) -> Tensor:
        y = (scan @ read[..., None])[..., 0] + x * self.skip
        result: Tensor = self.leave(y * functional.silu(z))
        return result
