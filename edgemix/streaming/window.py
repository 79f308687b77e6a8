"""The step of a convolution over time: the last inputs are its memory."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def convolve_last(
    past: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None, *, dilation: int = 1,
    groups: int = 1,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The output [batch, filters] at the latest input, and the past of the next step.

    Args:
        past: the inputs that the kernel reaches [batch, channels, reach], the oldest first.
        x: the latest input [batch, channels].
        weight: [filters, channels of a group, kernel], reach = (kernel − 1) · dilation.
        bias: [filters], or None.
        dilation: steps between two taps.
        groups: of channels that do not mix.
    """
    window = torch.cat([past, x[:, :, None]], 2)
    # What a dilated kernel reads of the window, as an undilated one reads it.
    y = functional.conv1d(window[:, :, ::dilation], weight, bias, groups=groups)
    return y[:, :, 0], window[:, :, 1:]
