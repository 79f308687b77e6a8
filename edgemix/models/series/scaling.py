"""Instance normalization: every series is forecast at mean 0 and deviation 1, then put back."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

MINIMUM = 1e-5
"""Added to the variance, so that a constant series has a deviation to divide by."""


class Standardized(NamedTuple):
    """Series at mean 0 and deviation 1, and what puts others of theirs back."""

    values: Tensor
    """[n, channels, time]."""
    mean: Tensor
    """[n, channels, 1]."""
    inverse: Tensor
    """[n, channels, 1]: one over the deviation."""

    def restore(self, forecast: Tensor) -> Tensor:
        """``forecast`` [n, channels, horizon] at the level and the spread of the series."""
        return forecast / self.inverse + self.mean


def standardize(x: Tensor, minimum: float = MINIMUM) -> Standardized:
    """Take the mean over time off every series and divide by the deviation.

    Kim et al., "Reversible Instance Normalization for Accurate Time-Series Forecasting against
    Distribution Shift", ICLR 2022, equations 1 to 3, without learned gains, as TSMixer and TTM
    have it:

        μ = mean(x),  σ = sqrt(mean((x - μ)²) + ε),  x' = (x - μ) / σ,  y = σ y' + μ

    1 / σ is what is computed, and what the forecast is divided by: one rounded value for both ways
    once it is quantized, and no square root, which LiteRT's kernel of eight bits rounds down.

    Shape: [n, channels, time] → the same.
    """
    mean = x.mean(-1, keepdim=True)
    centred = x - mean
    inverse = ((centred * centred).mean(-1, keepdim=True) + minimum).rsqrt()
    return Standardized(centred * inverse, mean, inverse)
