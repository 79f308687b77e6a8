"""Series as trend and season, by a mean over neighbouring steps."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.errors import InputError


class MovingAverage(nn.Module):
    """Season and trend: the trend is a moving average, the season what it leaves.

    Wu et al., "Autoformer", NeurIPS 2021, section 3.1, equation 1. The first and the last step are
    repeated, so that the trend is as long as the series.

    Shape: [n, time, features] → the same, twice.

    Raises:
        InputError: the kernel has no middle.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise InputError(f"a mean over {kernel} steps has no middle", do="choose an odd kernel")
        self.reach = kernel // 2
        self.mean = nn.AvgPool1d(kernel, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        longer = torch.cat([*([x[:, :1]] * self.reach), x, *([x[:, -1:]] * self.reach)], 1)
        trend = self.mean(longer.transpose(1, 2)).transpose(1, 2)
        return x - trend, trend
