"""Structured pruning as a whole: from a program and samples to smaller programs."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property

import numpy as np
from torch import Tensor

from edgemix.batched import outputs
from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.prune.allocate import Limits, allocate, kept
from edgemix.quantize.prune.axes import Units, units_of
from edgemix.quantize.prune.choices import WITHOUT_DATA
from edgemix.quantize.prune.curves import Curve, curves
from edgemix.quantize.prune.cut import Keep, cut
from edgemix.quantize.prune.observe import observe
from edgemix.quantize.prune.recipe import MACS, PARAMETERS, Goal, Pruning
from edgemix.quantize.prune.refit import refit
from edgemix.quantize.prune.size import Counted, Terms, count, work

Heard = Callable[[float], None]
_COMPARED = 256


def _nobody(_: float) -> None:
    return None


@dataclass(frozen=True)
class Width:
    """One width of a model, before and after."""

    name: str
    before: int
    after: int


@dataclass(frozen=True)
class Pruner:
    """A program of which is known what each of its units is worth."""

    program: Program
    pruning: Pruning
    samples: Tensor
    units: Units
    curves: tuple[tuple[Curve, ...], ...]
    """Of each way to weigh units."""
    terms: dict[Counted, Terms] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        program: Program,
        pruning: Pruning,
        samples: Tensor,
        labels: Tensor | None = None,
        on_step: Heard = _nobody,
    ) -> Pruner:
        """Look at a program and its data.

        Args:
            program: float, after the standard rewrites.
            pruning: what may go, and what units are worth.
            samples: [n, ...], of a program with states [n, steps, ...].
            labels: classes [n]; None where there are none.
            on_step: called with the share that is done.

        Raises:
            InputError: patterns that match nothing, no labels for ``taylor``, a program that has
                nothing to lose.
        """
        units = units_of(program, heads=pruning.heads)
        _check_patterns(units, pruning)
        if not units.groups:
            stops = ", ".join(str(where) for where in units.halted[:3])
            raise InputError(
                "this model has no width that could shrink" + (f": {stops}" if stops else ""),
                do="give a model with layers between its first and its last",
            )
        if pruning.importance == "taylor" and labels is None:
            raise InputError(
                "taylor needs labels: without them no loss has a slope",
                do="give calibration data with y, or another importance",
            )
        found = None
        if pruning.importance not in WITHOUT_DATA:
            loss = labels if pruning.importance == "taylor" else None
            found = observe(
                program, units, samples, loss, lambda done: on_step(0.9 * done / len(samples))
            )
        ways = [(pruning.importance, found)]
        if pruning.importance == "refit" and found is not None:
            # Slopes tell far changes badly, shares know nothing of the outputs, and neither counts
            # what lies between layers: each is better at times, and the outputs tell.
            ways += [("refit", found.by_share()), ("hessian", found)]
        made = tuple(curves(program, units, *way) for way in ways)
        on_step(1.0)
        return cls(program, pruning, samples, units, made)

    def total(self, counted: Counted, keep: Keep | None = None) -> float:
        """Multiply-accumulates, or weights, with some units kept; None: all."""
        return self._terms(counted).total(self.units.everything() if keep is None else keep)

    def keep(self, counted: Counted, limit: float) -> Keep:
        """Which units stay for a limit on multiply-accumulates or weights, by the first way.

        Raises:
            InputError: it cannot be met.
        """
        return self._keep(self.curves[0], counted, limit)

    def _keep(self, way: tuple[Curve, ...], counted: Counted, limit: float) -> Keep:
        everything, terms = self.units.everything(), self._terms(counted)
        return allocate(way, terms, everything, limit, self._limits(), self._work)

    @cached_property
    def _work(self) -> Terms:
        return work(self.program, self.units)

    def within(
        self, counted: Counted, limit: float, on_step: Heard = _nobody
    ) -> tuple[Keep, Program]:
        """The pruned program within a limit, by the way that leaves the outputs nearest.

        Raises:
            InputError: it cannot be met.
        """
        ways = self.curves if self.pruning.refit else self.curves[:1]
        keeps = [self._keep(way, counted, limit) for way in ways]
        made: list[tuple[Keep, Program]] = []
        for i, keep in enumerate(keeps):
            if not any(np.array_equal(keep, other) for other, _ in made):
                made.append((keep, self.made(keep, _part(on_step, i, len(keeps)))))
        on_step(1.0)
        return min(made, key=lambda pair: self._error(pair[1])) if len(made) > 1 else made[0]

    def _error(self, small: Program) -> float:
        """What the outputs lose on the calibration samples."""
        some = self.samples[:_COMPARED]
        change = outputs(small, some) - outputs(self.program, some)
        return float(change.double().square().sum())

    def cut(self, keep: Keep) -> Program:
        """The program without the units that go, its weights as they were."""
        options = {
            "importance": self.pruning.importance,
            "macs": round(self.total("macs", keep) / self.total("macs"), 4),
            "widths": {w.name: [w.before, w.after] for w in self.widths(keep)},
        }
        return cut(self.program, self.units, keep, Step("prune", options))

    def made(self, keep: Keep, on_step: Heard = _nobody) -> Program:
        """The program without the units that go, fitted to the whole one if that is asked for."""
        small = self.cut(keep)
        if not self.pruning.refit:
            on_step(1.0)
            return small
        return refit(self.program, small, self.units, keep, self.samples, on_step)

    def widths(self, keep: Keep) -> tuple[Width, ...]:
        """Every width that shrinks."""
        found = (Width(*entry) for entry in kept(self.curves[0], keep))
        return tuple(width for width in found if width.after < width.before)

    def _terms(self, counted: Counted) -> Terms:
        if counted not in self.terms:
            self.terms[counted] = count(self.program, self.units, counted)
        return self.terms[counted]

    def _limits(self) -> Limits:
        return Limits(self.pruning.least, self.pruning.multiple, tuple(self.pruning.keep))


def _part(on_step: Heard, i: int, of: int) -> Heard:
    """A listener for one of several equal parts."""
    return lambda share: on_step((i + share) / of)


def _check_patterns(units: Units, pruning: Pruning) -> None:
    names = sorted({name for group in units.groups for name in group.modules})
    for pattern in pruning.keep:
        if not any(fnmatchcase(name, pattern) for name in names):
            near = difflib.get_close_matches(pattern, names, n=3, cutoff=0.3)
            shown = ", ".join(near or names[:5])
            raise InputError(
                f"no width matches {pattern}",
                do=f"patterns are of module paths, like {shown}",
            )


def prune(
    program: Program,
    samples: Tensor,
    pruning: Pruning | None = None,
    labels: Tensor | None = None,
) -> Program:
    """A program that keeps within a share of its multiply-accumulates or weights.

    Args:
        program: float, after the standard rewrites.
        samples: [n, ...].
        pruning: what goes; None: half of the multiply-accumulates.
        labels: classes [n], for ``taylor`` alone.

    Raises:
        InputError: the budget cannot be met, or is one that needs an estimator.
    """
    chosen = pruning or Pruning(budget="50%")
    goal = Goal.parse(chosen.budget or "50%")
    if goal.what not in (MACS, PARAMETERS):
        raise InputError(f"{goal.what} has to be estimated", do="prune with `edgemix prune`")
    pruner = Pruner.of(program, chosen, samples, labels)
    return pruner.within(goal.counted, goal.limit(pruner.total(goal.counted)))[1]
