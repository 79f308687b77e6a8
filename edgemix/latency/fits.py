"""What a unit of work costs on a device and runtime, fitted to published latencies.

``python -m tests.benchmarks.latency`` makes them, from the latencies and the work of their models
that stand in ``facts``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from edgemix.latency.work import Vector

FACTS = resources.files("edgemix.latency").joinpath("facts")


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


@cache
def fits() -> Mapping[str, Fit]:
    """All that were made, by name."""
    return {name: _fit(name, found) for name, found in facts("fits.json").items()}


def _fit(name: str, found: Mapping[str, Any]) -> Fit:
    low, high = found["spread"]
    return Fit(
        name, np.array(found["costs"]), found["models"], (low, high), np.array(found["largest"]),
        found["smallest"],
        {which: Accuracy(**scores) for which, scores in found["accuracy"].items()},
        found["judged_by"],
    )  # fmt: skip


@cache
def facts(name: str) -> Any:
    """A file of facts in JSON."""
    return json.loads(FACTS.joinpath(name).read_text(encoding="utf-8"))
