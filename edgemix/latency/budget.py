"""Budgets on the command line, and the verdict on them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.estimator import Estimate
from edgemix.latency.resources import RESOURCES, Resources
from edgemix.latency.units import BYTES, MS, duration, storage

_COUNTS = {"": 1.0, "%": 1.0}
_VALUE = re.compile(r"([0-9.]+(?:e-?\d+)?)\s*([a-zA-Zµ%]*)")
LATENCY = "latency"
SIZE = "size"


@dataclass(frozen=True)
class Budget:
    """The longest median time, the largest artifact, or the most that a design takes of an FPGA."""

    target: str | None
    """None: of every target that has such a number; one at least must have it."""
    what: str
    """``latency``, ``size`` or a name of ``RESOURCES``."""
    limit: float
    """ms; bytes; a count; or, with ``relative``, a share of what the part has."""
    relative: bool = False
    device: str | None = None
    """Where the time is to be kept; None: where the target's own time comes from."""

    @classmethod
    def parse(
        cls,
        text: str,
        targets: Sequence[str],
        fpga: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> Budget:
        """``onnx=2ms``, ``latency=2us``, ``iphone12=2ms``, ``size=5MB``, ``lut=50%``.

        A time alone is for the one device that there is, or for what is measured.

        Args:
            text: what the user wrote.
            targets: those that are being built.
            fpga: those of them that take resources of an FPGA.
            devices: those that times are estimated for.

        Raises:
            InputError: the text has another form, an unknown unit, or another target.
        """
        name, given, value = text.partition("=")
        if not given and text[:1].isdigit():
            name, value = devices[0] if len(devices) == 1 else LATENCY, text
        elif not given:
            raise InputError(f"no budget: {text}", do="write it like onnx=2ms, size=5MB or lut=50%")
        try:
            return cls.read(name.strip(), value.strip(), targets, fpga, devices)
        except InputError as error:
            raise InputError(f"the budget {text}: {error.what}", do=error.do) from error

    @classmethod
    def of_time(cls, text: str) -> Budget:
        """``2ms``: where nothing but a time is limited.

        Raises:
            InputError: it is no time.
        """
        try:
            return cls(None, LATENCY, _number(LATENCY, text.strip(), LATENCY))
        except InputError as error:
            raise InputError(f"the budget {text}: {error.what}", do="write it like 2ms") from error

    @classmethod
    def read(
        cls,
        name: str,
        value: str,
        targets: Sequence[str],
        fpga: Sequence[str] = (),
        devices: Sequence[str] = (),
    ) -> Budget:
        """A budget whose name and value are known apart, with messages that speak of these.

        Raises:
            InputError: as :meth:`parse`.
        """
        first, dot, second = name.partition(".")
        if first in devices and not dot:
            return cls(None, LATENCY, _number(first, value, LATENCY), device=first)
        bare = not dot and (first in (LATENCY, SIZE) or first in RESOURCES)
        target, what = (None, first) if bare else (first, second or LATENCY)
        if target is not None and target not in targets:
            raise InputError(
                f"it is for a target that is not being built: {target}",
                do=f"use one of {', '.join((*targets, *devices))}, or name the device",
            )
        if what in devices:
            return cls(target, LATENCY, _number(name, value, LATENCY), device=what)
        if what not in (LATENCY, SIZE):
            _check_resource(what, target, fpga)
        limit = _number(name, value, what)
        relative = value.endswith("%")
        return cls(target, what, limit / 100 if relative else limit, relative)

    def of(self, target: str, fpga: Sequence[str]) -> bool:
        """Whether it is for this target."""
        if self.target is None:
            return self.what in (LATENCY, SIZE) or target in fpga
        return self.target == target


def _number(name: str, value: str, what: str) -> float:
    """A positive number in the unit of what is limited: ms, bytes, a count or a share in percent.

    Raises:
        InputError: it is none; the message says which unit is wanted.
    """
    units = MS if what == LATENCY else BYTES if what == SIZE else _COUNTS
    like = {LATENCY: "2ms", SIZE: "5MB"}.get(what, "50%, or a count")
    match = _VALUE.fullmatch(value)
    if match is None:
        raise InputError(f'"{value}" is no number with a unit', do=f"write it like {like}")
    number, unit = match.groups()
    try:
        limit = float(number)
    except ValueError as error:
        raise InputError(f'"{value}" has no number: {number}') from error
    if unit not in units:
        raise _wrong_unit(name, value, what, unit, like, units)
    if limit <= 0:
        raise InputError("a budget must be positive")
    return limit * units[unit]


def _wrong_unit(
    name: str, value: str, what: str, unit: str, like: str, units: Mapping[str, float]
) -> InputError:
    known = ", ".join(units)
    if unit in BYTES and what == LATENCY:
        own = "" if name == LATENCY else f"{name}."
        return InputError(
            f'"{value}" is a size, and this is a budget of time: it wants one of {known}',
            do=f"write {own}{SIZE}={value}" if "." not in name else f"write it like {like}",
        )
    if unit in MS and what == SIZE:
        said = f'"{value}" is a time, and this is a budget of size: it wants one of {known}'
        return InputError(said, do=f"write it like {like}")
    if what not in (LATENCY, SIZE):
        return InputError(f'"{value}" is neither a count nor a share', do=f"write it like {like}")
    if not unit:
        return InputError(f'"{value}" has no unit', do=f"write it like {value}{like[1:]} ({known})")
    return InputError(f'"{value}" has no unit that edgemix knows: {unit}', do=f"use one of {known}")


def _check_resource(what: str, target: str | None, fpga: Sequence[str]) -> None:
    if what not in RESOURCES:
        raise InputError(
            f"it is for something that edgemix does not count: {what}",
            do=f"use {LATENCY}, {SIZE} or one of {', '.join(RESOURCES)}",
        )
    if not fpga or target not in (None, *fpga):
        raise InputError("it is for an FPGA, and none is being built for")


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
    remedy: str = ""
    """What would pass, by estimate; see :mod:`edgemix.remedies`."""


@dataclass(frozen=True)
class Figures:
    """What is known of one target's artifact."""

    latency: Latency | None = None
    resources: Resources | None = None
    size: int | None = None
    """Bytes of what is shipped."""
    on: Mapping[str, Estimate] = field(default_factory=dict)
    """Times on devices, by name."""


def judge(budget: Budget, target: str, figures: Figures) -> Verdict:
    """A budget against what was found; a budget without a number to hold against it fails."""
    if budget.device is not None:
        return _judge_estimate(budget, target, figures.on.get(budget.device))
    if budget.what == SIZE:
        return _judge_size(budget, target, figures.size)
    if budget.what != LATENCY:
        return _judge_resource(budget, target, figures.resources)
    asked, latency = f"≤ {duration(budget.limit)}", figures.latency
    if latency is None:
        why = "this target gives no latency on this machine"
        return Verdict("budget", target, asked, "no latency", False, why)
    found = f"{duration(latency.p50_ms)} {latency.kind}"
    return _verdict(target, asked, found, latency.p50_ms / budget.limit)


Remedy = Callable[[Budget, str], str]
"""From a budget that a target misses, and the target's name, to what would keep it."""


def judge_all(
    budgets: Sequence[Budget],
    figures: Mapping[str, Figures],
    fpga: Sequence[str],
    remedy: Remedy = lambda budget, target: "",
) -> dict[str, tuple[Verdict, ...]]:
    """Verdicts by target.

    A budget for any target passes over those without such a number, unless none has it: then it
    fails for each.
    """
    verdicts: dict[str, list[Verdict]] = {name: [] for name in figures}
    for budget in budgets:
        own = [name for name in figures if budget.of(name, fpga)]
        known = [name for name in own if _has_number(budget, figures[name])]
        for name in known if budget.target is None and known else own:
            found = judge(budget, name, figures[name])
            helps = "" if found.passed else remedy(budget, name)
            verdicts[name].append(replace(found, remedy=helps))
    return {name: tuple(found) for name, found in verdicts.items()}


def _has_number(budget: Budget, figures: Figures) -> bool:
    if budget.device is not None:
        return budget.device in figures.on
    if budget.what == SIZE:
        return figures.size is not None
    if budget.what == LATENCY:
        return figures.latency is not None
    return figures.resources is not None and budget.what in figures.resources.used


def _verdict(target: str, asked: str, found: str, times: float) -> Verdict:
    passed = times <= 1
    why = "" if passed else f"{times:.3g} times the budget"
    return Verdict("budget", target, asked, found, passed, why)


def _judge_estimate(budget: Budget, target: str, estimate: Estimate | None) -> Verdict:
    asked = f"≤ {duration(budget.limit)} on {budget.device}"
    if estimate is None:
        why = f"nothing estimates this target's time on {budget.device}"
        return Verdict("budget", target, asked, "no latency", False, why)
    latency = estimate.latency
    around = f"{duration(estimate.low_ms, 3)} to {duration(estimate.high_ms, 3)}"
    found = f"{duration(latency.p50_ms, 3)} {latency.kind} ({around})"
    return _verdict(target, asked, found, latency.p50_ms / budget.limit)


def _judge_size(budget: Budget, target: str, size: int | None) -> Verdict:
    asked = f"size ≤ {storage(budget.limit)}"
    if size is None:
        return Verdict("budget", target, asked, "no size", False, "there is no artifact")
    return _verdict(target, asked, storage(size), size / budget.limit)


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
    return _verdict(target, asked, found, value / budget.limit)
