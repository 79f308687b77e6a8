"""A causal convolution that takes several positions a step."""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.errors import InputError
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.streaming.protocol import State, held


class ChunkedConv(CausalConv):
    """A :class:`CausalConv` whose step is one convolution over a chunk and what came before it.

    Shape: [batch, time, channels] → [batch, time, filters], time a multiple of ``chunk``.

    Raises:
        InputError: the kernel has one tap, and so nothing to remember.
    """

    def __init__(
        self, channels: int, kernel: int, filters: int | None = None, *, chunk: int,
        dilation: int = 1, depthwise: bool = False, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            channels, kernel, filters, dilation=dilation, depthwise=depthwise, bias=bias
        )
        if not self.reach:
            raise InputError("a convolution of one tap is a linear map", do="take nn.Linear")
        self.chunk = chunk

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        window = torch.cat([held(state, "past"), x.transpose(1, 2)], 2)
        y: Tensor = self.conv(window).transpose(1, 2)
        return y, {"past": window[:, :, -self.reach :]}
