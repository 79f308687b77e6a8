"""Budgets on the command line, and the verdict on them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.resources import RESOURCES, Resources
from edgemix.latency.units import duration

_MS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "µs": 1e-3, "ns": 1e-6}
_FORM = re.compile(r"(\w+)(?:\.(\w+))?=([0-9.]+(?:e-?\d+)?)\s*([a-zµ%]*)")
LATENCY = "latency"


@dataclass(frozen=True)
class Budget:
    """The longest median time of an inference, or the most that a design takes of an FPGA."""

    target: str | None
    """None: of every target that has such a number; one at least must have it."""
    what: str
    """``latency`` or a name of ``RESOURCES``."""
    limit: float
    """ms; a count; or, with ``relative``, a share of what the part has."""
    relative: bool = False

    @classmethod
    def parse(cls, text: str, targets: Sequence[str], fpga: Sequence[str] = ()) -> Budget:
        """``onnx=2ms``, ``latency=2us``, ``lut=50%``, ``rtl.dsp=100``.

        Args:
            text: what the user wrote.
            targets: those that are being built.
            fpga: those of them that take resources of an FPGA.

        Raises:
            InputError: the text has another form, an unknown unit, or another target.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            raise InputError(f"no budget: {text}", do="write it like onnx=2ms or lut=50%")
        first, second, number, unit = match.groups()
        bare = second is None and (first == LATENCY or first in RESOURCES)
        target, what = (None, first) if bare else (first, second or LATENCY)
        if target is not None and target not in targets:
            raise InputError(
                f"the budget {text} is for a target that is not being built: {target}",
                do=f"use one of {', '.join(targets)}",
            )
        try:
            value = float(number)
        except ValueError as error:
            raise InputError(f"the budget {text} has no number: {number}") from error
        if value <= 0:
            raise InputError(f"a budget must be positive: {text}")
        if what == LATENCY:
            if unit not in _MS:
                raise InputError(
                    f"the budget {text} has no unit that edgemix knows: {unit or 'none'}",
                    do=f"use one of {', '.join(_MS)}",
                )
            return cls(target, what, value * _MS[unit])
        _check_resource(text, what, unit, target, fpga)
        return cls(target, what, value / 100 if unit else value, relative=bool(unit))

    def of(self, target: str, fpga: Sequence[str]) -> bool:
        """Whether it is for this target."""
        if self.target is None:
            return self.what == LATENCY or target in fpga
        return self.target == target


def _check_resource(
    text: str, what: str, unit: str, target: str | None, fpga: Sequence[str]
) -> None:
    if what not in RESOURCES:
        raise InputError(
            f"the budget {text} is for something that edgemix does not count: {what}",
            do=f"use {LATENCY} or one of {', '.join(RESOURCES)}",
        )
    if unit not in ("", "%"):
        raise InputError(f"the budget {text} is neither a count nor a share", do=f"like {what}=50%")
    if not fpga or target not in (None, *fpga):
        raise InputError(f"the budget {text} is for an FPGA, and none is being built for")


@dataclass(frozen=True)
class Verdict:
    """What was asked, what was found, and whether it passes."""

    gate: str
    """``budget``, ``fidelity``, ``precision`` or ``accuracy``."""
    target: str
    asked: str
    found: str
    passed: bool
    why: str = ""


def judge(
    budget: Budget, target: str, latency: Latency | None, resources: Resources | None = None
) -> Verdict:
    """A budget against what was found; a budget without a number to hold against it fails."""
    if budget.what != LATENCY:
        return _judge_resource(budget, target, resources)
    asked = f"≤ {duration(budget.limit)}"
    if latency is None:
        why = "this target gives no latency on this machine"
        return Verdict("budget", target, asked, "no latency", False, why)
    found = f"{duration(latency.p50_ms)} {latency.kind}"
    passed = latency.p50_ms <= budget.limit
    why = "" if passed else f"{latency.p50_ms / budget.limit:.2g} times the budget"
    return Verdict("budget", target, asked, found, passed, why)


Figures = Mapping[str, tuple[Latency | None, Resources | None]]
"""What is known of every target, by its name."""


def judge_all(
    budgets: Sequence[Budget], figures: Figures, fpga: Sequence[str]
) -> dict[str, tuple[Verdict, ...]]:
    """Verdicts by target.

    A budget for any target passes over those without such a number, unless none has it: then it
    fails for each.
    """
    verdicts: dict[str, list[Verdict]] = {name: [] for name in figures}
    for budget in budgets:
        own = [name for name in figures if budget.of(name, fpga)]
        known = [name for name in own if _has_number(budget, *figures[name])]
        for name in known if budget.target is None and known else own:
            verdicts[name].append(judge(budget, name, *figures[name]))
    return {name: tuple(found) for name, found in verdicts.items()}


def _has_number(budget: Budget, latency: Latency | None, resources: Resources | None) -> bool:
    if budget.what == LATENCY:
        return latency is not None
    return resources is not None and budget.what in resources.used


def _judge_resource(budget: Budget, target: str, resources: Resources | None) -> Verdict:
    name = budget.what.upper()
    asked = (
        f"{name} ≤ {budget.limit:.4g}" if not budget.relative else f"{name} ≤ {budget.limit:.0%}"
    )
    count = None if resources is None else resources.used.get(budget.what)
    share = None if resources is None else resources.share(budget.what)
    value = share if budget.relative else count
    if resources is None or count is None or value is None:
        why = "nothing has counted it: `edgemix synth` does"
        return Verdict("budget", target, asked, "no count", False, why)
    found = f"{count:,}" + ("" if share is None else f" ({share:.1%})") + f" by {resources.method}"
    passed = value <= budget.limit
    why = "" if passed else f"{value / budget.limit:.2g} times the budget"
    return Verdict("budget", target, asked, found, passed, why)
