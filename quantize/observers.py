"""What calibration keeps of a tensor, and how a range is chosen from it.

The histogram spans ±2**k and doubles when a larger value comes, neighbouring bins falling
together: memory is constant, and the result does not depend on the order of the batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgemix.quantize.params import Range, encode, representable
from edgemix.quantize.recipe import Rule

BINS = 8192


@dataclass(frozen=True)
class TensorStats:
    """Minimum, maximum and histogram of all values of a tensor that calibration saw."""

    minimum: float
    maximum: float
    exponent: int
    """The histogram spans [-2**exponent, 2**exponent]."""
    counts: Tensor
    """Values per bin, float64[BINS]."""
    sums: Tensor
    """Sum of the values in a bin, float64[BINS]: a bin's mean, not its middle, stands for it."""

    @classmethod
    def of(cls, values: Tensor) -> TensorStats:
        """The statistics of one tensor (any shape, at least one value, all finite)."""
        flat = values.detach().reshape(-1).to(torch.float64)
        lo, hi = flat.min().item(), flat.max().item()
        exponent = _exponent(max(-lo, hi))
        span = math.ldexp(1.0, exponent)
        index = ((flat + span) * (BINS / (2 * span))).floor_().clamp_(0, BINS - 1).to(torch.int64)
        counts = torch.bincount(index, minlength=BINS).to(torch.float64)
        sums = torch.bincount(index, weights=flat, minlength=BINS)
        return cls(lo, hi, exponent, counts, sums)

    def merge(self, other: TensorStats) -> TensorStats:
        """The statistics of both; the order does not matter."""
        exponent = max(self.exponent, other.exponent)
        a, b = self._widened(exponent), other._widened(exponent)
        return TensorStats(
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            exponent,
            a[0] + b[0],
            a[1] + b[1],
        )

    @property
    def count(self) -> int:
        """Number of values seen."""
        return int(self.counts.sum().item())

    def _widened(self, exponent: int) -> tuple[Tensor, Tensor]:
        counts, sums = self.counts, self.sums
        group = 1 << min(exponent - self.exponent, 40)
        if group == 1:
            return counts, sums
        # The old span lies in the middle of the new one; `group` old bins make one new bin.
        half = BINS // 2
        left = torch.div(torch.arange(BINS) - half, group, rounding_mode="floor") + half
        wide = torch.zeros(2, BINS, dtype=torch.float64)
        wide[0].index_add_(0, left, counts)
        wide[1].index_add_(0, left, sums)
        return wide[0], wide[1]


def choose_range(stats: TensorStats, rule: Rule) -> Range:
    """The range that the rule's observer finds.

    ``minmax`` takes everything seen. ``percentile`` cuts the same share off both tails. ``mse``
    tries ranges from the full one down to a twentieth of it and keeps the one with the smallest
    mean squared rounding and clipping error over the histogram.
    """
    full = (stats.minimum, stats.maximum)
    if rule.observer == "minmax":
        return full
    if rule.observer == "percentile":
        return _percentile(stats, rule.percentile)
    return _least_squared_error(stats, rule)


def _percentile(stats: TensorStats, percent: float) -> Range:
    width = math.ldexp(2.0, stats.exponent) / BINS
    cumulative = torch.cumsum(stats.counts, 0) / stats.counts.sum()
    tail = (100.0 - percent) / 100.0
    first = int(torch.searchsorted(cumulative, torch.tensor(tail, dtype=torch.float64), right=True))
    last = int(torch.searchsorted(cumulative, torch.tensor(1.0 - tail, dtype=torch.float64)))
    low = -math.ldexp(1.0, stats.exponent) + first * width
    high = -math.ldexp(1.0, stats.exponent) + (min(last, BINS - 1) + 1) * width
    return max(low, stats.minimum), min(high, stats.maximum)


def _least_squared_error(stats: TensorStats, rule: Rule) -> Range:
    filled = stats.counts > 0
    weight = stats.counts[filled]
    value = (stats.sums[filled] / weight).to(torch.float32)
    best, best_error = (stats.minimum, stats.maximum), math.inf
    tried = set()
    for share in torch.linspace(1.0, 0.05, 96).tolist():
        encoding = encode((stats.minimum * share, stats.maximum * share), rule)
        if encoding in tried:
            continue
        tried.add(encoding)
        error = value - encoding.dequantize(encoding.quantize(value))
        total = float((weight * error.to(torch.float64) ** 2).sum())
        if total < best_error:
            best, best_error = representable(encoding), total
    return best


def _exponent(peak: float) -> int:
    """Smallest k with peak <= 2**k."""
    if peak == 0.0:
        return -24
    mantissa, exponent = math.frexp(peak)
    return exponent - 1 if mantissa == 0.5 else exponent
