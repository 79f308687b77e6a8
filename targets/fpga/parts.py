"""FPGA parts that edgemix knows, and clocks."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Literal

from edgemix.errors import InputError, did_you_mean

Family = Literal["xc7", "xcu", "xcup"]
"""Series 7, UltraScale, UltraScale+, as Yosys calls them."""

_ORDER = re.compile(r"-?(?P<package>[a-z]{2,4}\d{3,4})-(?P<grade>\d[a-z]*(?:-[a-z0-9]+)*)")
_PERIODS = 0.5, 1000.0
"""ns: no fabric is faster, no clock input slower."""


@dataclass(frozen=True)
class Part:
    """An orderable part."""

    name: str
    device: str
    family: Family
    available: Mapping[str, int]
    """By name of ``RESOURCES``."""


def part(name: str) -> Part:
    """A part by its full name, like ``xc7z020clg400-1`` or ``xcvu13p-flga2577-2-e``.

    Raises:
        InputError: nobody knows the device, or package and speed grade are missing.
    """
    known = _catalogue()
    lower = name.strip().lower()
    device = max((d for d in known if lower.startswith(d)), key=len, default=None)
    if device is None:
        near = did_you_mean(re.split(r"-", lower)[0][:8], known, most=3, cutoff=0.4)
        raise InputError(
            f"nobody here knows the part {name}", do=f"{near}devices: {', '.join(known)}"
        )
    if _ORDER.fullmatch(lower[len(device) :]) is None:
        raise InputError(
            f"{name} is not a whole part name",
            do=f"add package and speed grade, like {_example(device)}",
        )
    facts = dict(known[device])
    return Part(lower, device, facts.pop("family"), facts)


def same(a: str, b: str) -> bool:
    """Whether two tools' names mean one part: hyphens, ``xc`` and the temperature grade vary."""
    first, second = (re.sub(r"^xc|-", "", name.lower()) for name in (a, b))
    return first.startswith(second) or second.startswith(first)


def period_ns(clock: str) -> float:
    """A clock as its period: ``5``, ``5ns`` or ``200MHz``.

    Raises:
        InputError: it is no clock, or none that an FPGA has.
    """
    match = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?) ?(ns|mhz|ghz)?", clock.strip().lower())
    if match is None or float(match[1]) == 0:
        raise InputError(f"no clock: {clock}", do="write it like 5ns or 200MHz")
    value = float(match[1])
    period = {"mhz": 1000 / value, "ghz": 1 / value}.get(match[2] or "ns", value)
    if not _PERIODS[0] <= period <= _PERIODS[1]:
        raise InputError(
            f"a clock of {clock} has a period of {period:g} ns",
            do=f"choose one between {_PERIODS[0]:g} and {_PERIODS[1]:g} ns",
        )
    return period


def _example(device: str) -> str:
    return "xc7z020clg400-1" if device.startswith("xc7") else "xcvu13p-flga2577-2-e"


@cache
def _catalogue() -> Mapping[str, dict[str, Any]]:
    text = (resources.files("edgemix.targets.fpga") / "parts.toml").read_text()
    return tomllib.loads(text)
