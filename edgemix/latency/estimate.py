"""How long a program takes on a device that is not here, and how far that may be off.

Costs per unit of work (:mod:`edgemix.latency.work`) are fitted to published latencies; with each
fit comes how it did on models whose family it never saw. ``python -m tests.benchmarks.latency``
makes both, from the latencies and the work of their models that stand in ``facts``.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.device import Device, Runtime
from edgemix.latency.units import duration
from edgemix.latency.work import PRODUCTS, UNITS, Vector, Work, multiplications, total, works
from edgemix.program import Program

_FACTS = resources.files("edgemix.latency").joinpath("facts")
_SAME = 0.02
"""By which the multiplications of one model may differ between two exports."""
_NOTABLE = 0.05
"""Share of the time from which on an unfitted kind of work is worth a word."""


@dataclass(frozen=True)
class Accuracy:
    """Of predictions for models whose family was left out of the fit."""

    median_error: float
    within_tenth: float
    """Share of the models whose estimate is within 10 % of the published latency."""
    rank_correlation: float
    """Kendall's τ."""


@dataclass(frozen=True)
class Fit:
    """Costs on one device and runtime, and what is known of their quality."""

    name: str
    costs: Vector
    """ms by unit of work, see ``UNITS``."""
    models: int
    spread: tuple[float, float]
    """Published over estimated time: a tenth of the models lies below, a tenth above."""
    largest: Vector
    """Of any model in the fit, by unit."""
    smallest: float
    """Millions of multiplications."""
    accuracy: Mapping[str, Accuracy]
    """Of the ``estimator`` and the baselines ``multiplications`` and ``regression``."""
    judged_by: str
    """Whose models the accuracy is of, where the fit's own are too few to tell."""


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
def fits() -> Mapping[str, Fit]:
    """All that were made, by name."""
    return {name: _fit(name, found) for name, found in _facts("fits.json")["fits"].items()}


def _fit(name: str, found: Mapping[str, Any]) -> Fit:
    low, high = found["spread"]
    return Fit(
        name, np.array(found["costs"]), found["models"], (low, high), np.array(found["largest"]),
        found["smallest"],
        {which: Accuracy(**scores) for which, scores in found["accuracy"].items()},
        found["judged_by"],
    )  # fmt: skip


@cache
def _facts(name: str) -> Any:
    return json.loads(_FACTS.joinpath(name).read_text())


@cache
def _latencies() -> tuple[Mapping[str, str], ...]:
    with _FACTS.joinpath("latencies.csv").open() as file:
        return tuple(csv.DictReader(file))


def _published(source: str, vector: Vector, fit: str) -> tuple[Published, ...]:
    size = multiplications(vector)
    same = {
        name
        for name, model in _facts("models.json").items()
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
