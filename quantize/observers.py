"""What calibration keeps of a tensor, and how a range is chosen from it.

The histogram spans ±2**k and doubles when a larger value comes, neighbouring bins falling
together: memory is constant, and the result does not depend on how samples are batched. Limits are
those of all values, of every channel too where a linear operator reads them; the histogram counts
some.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgemix.quantize.params import Range, encode
from edgemix.quantize.recipe import Rule

BINS = 8192
COUNTED = 256
"""Values of one sample of a tensor that are counted."""


@dataclass(frozen=True)
class TensorStats:
    """Limits and histogram of the values of a tensor that calibration saw."""

    minimum: float
    maximum: float
    exponent: int
    """The histogram spans [-2**exponent, 2**exponent]."""
    counts: Tensor
    """Values per bin, float64[BINS]."""
    sums: Tensor
    """Sum of the values in a bin, float64[BINS]: a bin's mean, not its middle, stands for it."""
    lows: Tensor
    """Smallest value of every channel, float32[channels]."""
    highs: Tensor
    """Largest value of every channel, float32[channels]."""

    @classmethod
    def of(
        cls, values: Tensor | None, lows: Tensor | None = None, highs: Tensor | None = None
    ) -> TensorStats:
        """The statistics of one tensor (any shape, all finite).

        Args:
            values: those to count; None counts nothing, limits alone are known.
            lows: the smallest of all values by channel; None: ``values`` are all, of one channel.
            highs: the largest.
        """
        flat = torch.zeros(0) if values is None else values.detach().reshape(-1)
        lows = flat.min()[None] if lows is None else lows
        highs = flat.max()[None] if highs is None else highs
        lo, hi = lows.min().item(), highs.max().item()
        exponent = _exponent(max(-lo, hi))
        # Scaling by a power of two is exact, so that bins are the same at any size of values.
        index = (flat * math.ldexp(BINS / 2, -exponent)).floor_().add_(BINS / 2)
        index = index.clamp_(0, BINS - 1).to(torch.int64)
        counts = torch.bincount(index, minlength=BINS).to(torch.float64)
        sums = torch.bincount(index, weights=flat.to(torch.float64), minlength=BINS)
        return cls(lo, hi, exponent, counts, sums, lows, highs)

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
            torch.minimum(self.lows, other.lows),
            torch.maximum(self.highs, other.highs),
        )

    @property
    def count(self) -> int:
        """Number of values counted."""
        return int(self.counts.sum().item())

    def values(self) -> tuple[Tensor, Tensor]:
        """What was counted: the values of the filled bins, float32, and how many of each."""
        filled = self.counts > 0
        weight = self.counts[filled]
        return (self.sums[filled] / weight).to(torch.float32), weight

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
    mean squared rounding and clipping error over the histogram; ``entropy`` the one that loses the
    fewest bits of the distribution (Migacz, "8-bit Inference with TensorRT", GTC 2017).
    """
    full = (stats.minimum, stats.maximum)
    if rule.observer == "minmax":
        return full
    if rule.observer == "percentile":
        return _percentile(stats, rule.percentile)
    if rule.observer == "entropy":
        return _least_divergence(stats, rule)
    return _least_squared_error(stats, rule)


def enough_bits(stats: TensorStats, rule: Rule) -> Rule:
    """The rule in the fewest bits that keep its SQNR on the histogram; as it is if it asks none."""
    if rule.sqnr_db is None:
        return rule
    value, weight = stats.values()
    signal = float((weight * value.double() ** 2).sum())
    for bits in range(rule.bits, 16):
        tried = rule.with_bits(bits)
        encoding = encode(choose_range(stats, tried), tried)
        error = value - encoding.dequantize(encoding.quantize(value))
        if float((weight * error.double() ** 2).sum()) <= signal * 10 ** (-rule.sqnr_db / 10):
            return tried
    return rule.with_bits(16)


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
    value, weight = stats.values()
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
            best, best_error = encoding.limits, total
    return best


_COARSE = 2048
"""Bins of the histograms whose entropies are compared, as in TensorRT's."""


def _least_divergence(stats: TensorStats, rule: Rule) -> Range:
    seen = stats.counts.reshape(_COARSE, -1).sum(1)
    centre = math.ldexp(1.0, stats.exponent) * ((torch.arange(_COARSE) + 0.5) * 2 / _COARSE - 1)
    best, least = (stats.minimum, stats.maximum), math.inf
    for share in torch.linspace(1.0, 0.05, 96).tolist():
        limit = share * max(-stats.minimum, stats.maximum)
        low, high = max(stats.minimum, -limit), min(stats.maximum, limit)
        encoding = encode((low, high), rule)
        inside = (centre >= low) & (centre <= high)
        if int(inside.sum()) < 2:
            break
        # What lies outside is clipped onto the outermost bins that remain.
        kept = torch.where(inside, seen, 0.0)
        first, last = inside.nonzero()[0], inside.nonzero()[-1]
        kept[first] += seen[centre < low].sum()
        kept[last] += seen[centre > high].sum()
        # A level's values become alike: its count is spread over its filled bins.
        level = encoding.quantize(centre.float())[inside].long() - encoding.qmin
        filled = seen[inside] > 0
        levels = encoding.qmax - encoding.qmin + 1
        total = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, seen[inside])
        shared = torch.zeros(levels, dtype=torch.float64).index_add_(0, level, filled.double())
        spread = torch.where(filled, total[level] / shared[level].clamp(min=1.0), 0.0)
        p, q = kept[inside] / kept.sum(), spread / spread.sum().clamp(min=1.0)
        both = p > 0
        loss = float((p[both] * (p[both] / q[both].clamp(min=1e-12)).log()).sum())
        if loss < least:
            best, least = (low, high), loss
    return best


def _exponent(peak: float) -> int:
    """Smallest k with peak <= 2**k, and at least -24: below that a tensor is zero."""
    mantissa, exponent = math.frexp(peak)
    return max(exponent - 1 if mantissa == 0.5 else exponent, _ZERO) if peak else _ZERO


_ZERO = -24
