"""How long a program takes on a device that is not here, and how far that may be off.

Costs per unit of work (:mod:`edgemix.latency.work`) are fitted to published latencies; with each
fit (:mod:`edgemix.latency.fits`) comes how it did on models whose family it never saw.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.device import Device, Runtime
from edgemix.latency.fits import FACTS, Fit, facts, fits
from edgemix.latency.units import duration
from edgemix.latency.work import PRODUCTS, UNITS, Vector, Work, multiplications, total, works
from edgemix.program import Program

_SAME = 0.02
"""By which the multiplications of one model may differ between two exports."""
_NOTABLE = 0.05
"""Share of the time from which on an unfitted kind of work is worth a word."""


@dataclass(frozen=True)
class Timed:
    """One operator's share."""

    work: Work
    ms: float


@dataclass(frozen=True)
class Published:
    """A latency that somebody reports."""

    ms: float
    source: str


@dataclass(frozen=True)
class Estimate:
    """Of one inference."""

    latency: Latency
    operators: tuple[Timed, ...]
    runtime: Runtime
    fit: Fit
    published: tuple[Published, ...]
    """What others report of this very model there."""
    notes: tuple[str, ...]
    """What others report, and what makes it less certain than its interval tells."""

    @property
    def low_ms(self) -> float:
        """A tenth of the models is faster than that."""
        return self.latency.p50_ms * self.fit.spread[0]

    @property
    def high_ms(self) -> float:
        """A tenth of the models is slower than that."""
        return self.latency.p50_ms * self.fit.spread[1]


def estimate(program: Program, device: Device, target: str | None = None) -> Estimate:
    """How long ``program`` takes on ``device``, as ``target`` runs it there.

    Args:
        program: float or quantized, rewritten as for lowering.
        device: see :mod:`edgemix.latency.device`.
        target: one of the device's, None for its first.

    Raises:
        InputError: nothing is known of that target there.
    """
    found, quantized = works(program), program.quantized
    runtime = _runtime(device, target, quantized=quantized)
    fit = fits()[runtime.fit]
    costs = fit.costs / runtime.faster
    vector = total(found)
    ms = float(costs @ vector)
    latency = Latency(
        kind="estimated",
        device=device.title,
        method=f"{runtime.unit}, {runtime.precision}; costs fitted to {fit.models} published "
        f"latencies ({fit.name})",
        p50_ms=ms,
        p90_ms=ms,
        p99_ms=ms,
        runs=0,
        warmup=0,
        threads=0,
        environment={"interval": f"{ms * fit.spread[0]:.4g} to {ms * fit.spread[1]:.4g} ms"},
    )
    timed = tuple(Timed(w, float(costs @ w.vector)) for w in found)
    reported = _published(program.origin.source, vector, fit.name) if runtime.faster == 1 else ()
    notes = (
        *(f"{duration(p.ms)} reported by {p.source}" for p in reported),
        *_notes(vector, costs, fit, runtime, quantized=quantized),
    )
    return Estimate(latency, timed, runtime, fit, reported, notes)


@cache
def _latencies() -> tuple[Mapping[str, str], ...]:
    with FACTS.joinpath("latencies.csv").open(encoding="utf-8") as file:
        return tuple(csv.DictReader(file))


def _published(source: str, vector: Vector, fit: str) -> tuple[Published, ...]:
    size = multiplications(vector)
    same = {
        name
        for name, model in facts("models.json").items()
        if model["source"] == source.partition("?")[0]
        and abs(multiplications(np.array(model["work"])) / size - 1) < _SAME
    }
    return tuple(
        Published(float(row["ms"]), row["source"])
        for row in (_latencies() if same else ())
        if row["model"] in same and row["fit"] == fit
    )


def _runtime(device: Device, target: str | None, *, quantized: bool) -> Runtime:
    there = [r for r in device.runtimes if target in (None, r.target)]
    if not there:
        known = f"it has {', '.join(device.targets)}" if device.targets else "it has none"
        raise InputError(
            f"no latency can be estimated for {target or 'anything'} on {device.title}",
            do=f"{known}; measure it with `edgemix measure`, or see `edgemix synth` for FPGAs",
        )
    asked = ("int8",) if quantized else ("float32", "float16")
    return next((r for r in there if r.precision in asked), there[0])


def _notes(
    vector: Vector, costs: Vector, fit: Fit, runtime: Runtime, *, quantized: bool
) -> list[str]:
    notes = [runtime.source] if runtime.source else []
    if quantized and runtime.precision != "int8":
        notes.append(f"the costs are of {runtime.precision}: what 8 bits save is not counted")
    if not quantized and runtime.precision == "int8":
        notes.append("the costs are of int8: a float model takes longer")
    size, most = multiplications(vector), multiplications(fit.largest)
    if not fit.smallest <= size <= most:
        notes.append(
            f"outside of what was fitted: {size:.4g} million multiplications, the models there "
            f"have {fit.smallest:.4g} to {most:.4g}"
        )
    shares = costs * vector / (costs @ vector)
    for name, share, seen in zip(UNITS, shares, fit.largest, strict=True):
        if seen == 0 and share > _NOTABLE:
            what = f"{name} products" if name in PRODUCTS else name
            notes.append(f"outside of what was fitted: {share:.0%} of the time are {what}")
    return notes
