"""Mamba: a state space whose step sizes and couplings depend on the input."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.selective_scan import SelectiveScan
from edgemix.streaming.protocol import State, Stepwise, held, part, zeros


class Mamba(Stepwise):
    """Short convolution, selective scan, gate.

    Gu, Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, figure 3:

        x, z = W x;  x ← silu(conv(x));  y = scan(x);  result = W_o (y · silu(z))

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
        self.inner, self.states = inner, states
        self.enter = nn.Linear(dim, 2 * inner, bias=False)
        self.conv = CausalConv(inner, kernel, depthwise=True)
        self.scan = SelectiveScan(inner, states=states, rank=rank or max(1, dim // 16))
        self.leave = nn.Linear(inner, dim, bias=False)

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
        decay, drive, read = self.scan.selected(x)
        scan = decay * held(state, "scan") + drive
        return self._left(self.scan.read(scan, read, x), z), {"conv": conv, "scan": scan}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, z = self.enter(x).chunk(2, -1)
        return self._left(self.scan(functional.silu(self.conv(x))), z)

    def _left(self, y: Tensor, z: Tensor) -> Tensor:
        result: Tensor = self.leave(y * functional.silu(z))
        return result
