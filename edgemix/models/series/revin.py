"""Instance normalization with a learned gain and a learned shift for each series."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.series.scaling import Standardized, standardize
from edgemix.models.sizes import check_size


class RevIN(nn.Module):
    """Series at mean β and deviation γ, and forecasts put back where the series were.

        x' = γ (x - μ) / σ + β,  y = σ (y' - β) / γ + μ

    Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against
    Distribution Shift", ICLR 2022, equations 1 to 3.

    Shape: [n, channels, time] → the same.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels
        self.gain = nn.Parameter(torch.ones(channels, 1))
        self.shift = nn.Parameter(torch.zeros(channels, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Standardized]:
        """Normalized series, and what puts their forecasts back."""
        check_size(self, "series", x.shape[1:2], (self.channels,))
        series = standardize(x)
        return series.values * self.gain + self.shift, series

    def restore(self, forecast: Tensor, series: Standardized) -> Tensor:
        """``forecast`` [n, channels, horizon] at the level and the spread of the series."""
        # A product with a constant is a scale; not every target has a division by one.
        return series.restore((forecast - self.shift) * self.gain.reciprocal())
