"""Convolution over time that reads no later input."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgemix.streaming.protocol import State, Stepwise, held, zeros
from edgemix.streaming.window import convolve_last


class CausalConv(Stepwise):
    """y_t = b + Σ_k W_k x_{t − (K−1−k)·dilation}, what was before the start being zero.

    van den Oord et al., "WaveNet", 2016, section 2.1. With ``depthwise`` every channel has a filter
    of its own, as in the short convolutions of Mamba and of the Conformer.

    Shape: [batch, time, channels] → [batch, time, filters].
    """

    def __init__(
        self, channels: int, kernel: int, filters: int | None = None, *, dilation: int = 1,
        depthwise: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        groups = channels if depthwise else 1
        self.conv = nn.Conv1d(
            channels, filters or channels, kernel, dilation=dilation, groups=groups, bias=bias
        )
        self.reach = (kernel - 1) * dilation

    def initial_state(self, batch: int = 1) -> State:
        """``past``: the last inputs that the kernel reaches, the oldest first."""
        return {"past": zeros(batch, self.conv.in_channels, self.reach)} if self.reach else {}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        c = self.conv
        past = held(state, "past") if self.reach else x[:, :, None][:, :, :0]
        y, after = convolve_last(past, x, c.weight, c.bias, dilation=c.dilation[0], groups=c.groups)
        return y, {"past": after} if self.reach else {}

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        padded = functional.pad(x.transpose(1, 2), (self.reach, 0))
        result: Tensor = self.conv(padded).transpose(1, 2)
        return result
