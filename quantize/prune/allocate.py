"""How much every width loses, for a budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from edgemix.errors import InputError
from edgemix.quantize.prune.curves import Curve
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.size import Terms

_NARROW = 4
_LEAP = 16
"""The largest part of a width that goes at once."""


@dataclass(frozen=True)
class Limits:
    """What a width keeps at least."""

    least: float = 0.1
    """Share of each width that stays."""
    multiple: int = 1
    """Widths stay multiples of this, where they were."""
    keep: tuple[str, ...] = ()
    """Patterns of modules: a width that one of them has weights of loses nothing."""

    def removable(self, curve: Curve) -> int:
        """How many units a width may lose."""
        count = len(curve.order)
        if any(fnmatchcase(m, p) for m in curve.group.modules for p in self.keep):
            return 0
        step = self.step(curve)
        stays = max(math.ceil(self.least * count), 1)
        return (count - stays) // step * step

    def step(self, curve: Curve) -> int:
        """How many units go together: narrow widths lose one at a time."""
        count = len(curve.order)
        return (
            self.multiple if count % self.multiple == 0 and count >= _NARROW * self.multiple else 1
        )


def allocate(
    curves: Sequence[Curve], terms: Terms, keep: Keep, budget: float, limits: Limits, work: Terms
) -> Keep:
    """Which units stay so that the total keeps within a budget, at the least cost.

    Units go in the order of their curves, always those of the width whose loss buys most: cost by
    the work that it saves, among those that save anything of the total.

    Raises:
        InputError: all that may go does not suffice; the message says how far it goes.
    """
    keep = keep.copy()
    gone = [0] * len(curves)
    most = [limits.removable(curve) for curve in curves]
    floor = keep.copy()
    for curve, count in zip(curves, most, strict=True):
        floor[curve.order[:count]] = False
    if (least := terms.total(floor)) > budget:
        share = least / terms.total(keep)
        raise InputError(
            f"the budget cannot be met: {share:.1%} is the least that pruning leaves",
            do="ask for less, lower what each width keeps (--least), or exclude fewer layers",
        )
    while terms.total(keep) > budget:
        slopes, times = terms.slopes(keep), work.slopes(keep)
        best, chosen = math.inf, (0, 0)
        for i, curve in enumerate(curves):
            step = limits.step(curve)
            leap = max(len(curve.order) // _LEAP // step, 1) * step
            for count in {step, leap}:
                end = gone[i] + count
                if end > most[i]:
                    continue
                some = curve.order[gone[i] : end]
                if slopes[some].sum() <= 0:
                    continue
                price = (curve.cost[end] - curve.cost[gone[i]]) / times[some].sum()
                if price < best:
                    best, chosen = price, (i, end)
        i, end = chosen
        keep[curves[i].order[gone[i] : end]] = False
        gone[i] = end
    return keep


def kept(curves: Sequence[Curve], keep: Keep) -> list[tuple[str, int, int]]:
    """Every width by name, before and after."""
    return [(c.group.name, len(c.order), int(np.sum(keep[c.order]))) for c in curves]
