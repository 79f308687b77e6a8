"""Costs per unit of work on each device, from published latencies.

Few models were measured on each device, so a fit starts from what the engine's kind is known for,
learns what its devices have in common, and then how one of them differs: maximum a posteriori, on
the logarithm of the time, with normal priors on the logarithms of the costs. An outlier counts
linearly (Huber), since papers differ by a fifth on one model and one phone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from edgemix.latency.work import PRODUCTS, UNITS

Vector = npt.NDArray[np.float64]

NOISE = 0.1
"""Of the logarithm of a published latency: its typical disagreement with another paper's."""
_HUBER = 1.5
_SHARED, _OWN, _SPEED = 0.3, 0.3, 3.0
"""How far, in natural logarithms, an engine's costs go from its prior, a device's from its
engine's, and the speed of a device from its engine's."""


@dataclass(frozen=True)
class Row:
    """A published latency."""

    fit: str
    model: str
    family: str
    ms: float
    work: Vector

    @property
    def engine(self) -> str:
        """What runs it, over all of its devices."""
        return self.fit.partition("/")[0]


Predict = Callable[[Row], float]
Costs = Mapping[str, Vector]
"""ms per unit of work, by fit."""


def _prior(
    *, products: Sequence[float], weights: float, values: float, product: float,
    light: tuple[float, float], nonlinear: tuple[float, float], heavy: tuple[float, float],
    inference: float,
) -> Vector:  # fmt: skip
    """Costs from rates.

    Args:
        products: 10⁹ multiplications a second, by kind of product.
        weights, values: 10⁹ of them a second.
        product, inference: ms to start one.
        light, nonlinear, heavy: 10⁹ values a second, and ms to start such an operator.
    """
    rates = [1 / r for r in (*products, weights, values)]
    others = [part for rate, start in (light, nonlinear, heavy) for part in (1 / rate, start)]
    return np.array([*rates, product, *others, inference])


PRIORS = {
    "coreml": _prior(
        products=(3500, 3500, 1200, 400, 600, 1500), weights=30, values=200, product=0.001,
        light=(800, 0.0005), nonlinear=(800, 0.0005), heavy=(60, 0.004), inference=0.3,
    ),
    "qualcomm": _prior(
        products=(4000, 4000, 2500, 400, 600, 1500), weights=30, values=100, product=0.001,
        light=(200, 0.0005), nonlinear=(100, 0.001), heavy=(30, 0.004), inference=0.2,
    ),
    "tensorrt": _prior(
        products=(120, 120, 120, 30, 40, 100), weights=12, values=8, product=0.03,
        light=(8, 0.03), nonlinear=(8, 0.03), heavy=(4, 0.05), inference=0.5,
    ),
    "xnnpack": _prior(
        products=(100, 90, 100, 25, 25, 40), weights=20, values=8, product=0.002,
        light=(8, 0.002), nonlinear=(2, 0.005), heavy=(4, 0.005), inference=0.05,
    ),
    "ncnn": _prior(
        products=(20, 12, 12, 4, 6, 12), weights=1.5, values=0.8, product=0.01,
        light=(0.8, 0.01), nonlinear=(0.8, 0.01), heavy=(0.8, 0.01), inference=0.1,
    ),
    "mcu": _prior(
        products=(0.1, 0.1, 0.1, 0.03, 0.05, 0.05), weights=0.1, values=0.015, product=0.02,
        light=(0.05, 0.02), nonlinear=(0.005, 0.05), heavy=(0.02, 0.05), inference=0.1,
    ),
}  # fmt: skip
"""What such engines are known for: a share of the peak that dense products reach, less for
depthwise ones, which wait for memory; bandwidths; and the time to start an operator. Their level
is free in each fit; what counts is how the entries relate."""
_KINDS = {
    "coreml": "coreml", "xnnpack-int8": "xnnpack", "tensorrt-fp16": "tensorrt", "ncnn": "ncnn",
    "mcu": "mcu", "tflite-fp16": "qualcomm", "onnx-fp16": "qualcomm",
}  # fmt: skip


def fitted(rows: Sequence[Row]) -> Costs:
    """Costs of every fit that the rows are of; those of one engine share what they can."""
    found: dict[str, Vector] = {}
    for engine in sorted({r.engine for r in rows}):
        own = [r for r in rows if r.engine == engine]
        shared, _ = _solve(own, np.log(PRIORS[_KINDS[engine]]), _SHARED)
        for fit in sorted({r.fit for r in own}):
            costs, speeds = _solve([r for r in own if r.fit == fit], shared, _OWN)
            found[fit] = np.exp(costs + speeds[fit])
    return found


def _solve(rows: Sequence[Row], prior: Vector, width: float) -> tuple[Vector, Mapping[str, float]]:
    """Logarithms of shared costs, and of how much slower each device is."""
    work = np.array([r.work for r in rows])
    times = np.log([r.ms for r in rows])
    fits = sorted({r.fit for r in rows})
    of = np.array([fits.index(r.fit) for r in rows])
    units = len(UNITS)

    def residuals(z: Vector) -> Vector:
        error = (np.log(work @ np.exp(prior + z[:units])) + z[units + of] - times) / NOISE
        robust = np.sign(error) * _HUBER * np.sqrt(2 * (np.sqrt(1 + (error / _HUBER) ** 2) - 1))
        return np.concatenate([robust, z[:units] / width, z[units:] / _SPEED])

    # Speeds start where they belong: the priors' level means nothing.
    level = times - np.log(work @ np.exp(prior))
    start = np.zeros(units + len(fits))
    start[units:] = [np.median(level[of == i]) for i in range(len(fits))]
    z = least_squares(residuals, start).x
    return prior + z[:units], dict(zip(fits, z[units:], strict=True))


def by_costs(rows: Sequence[Row]) -> Predict:
    """The estimator."""
    costs = fitted(rows)
    return lambda row: float(costs[row.fit] @ row.work) if row.fit in costs else float("nan")


def by_multiplications(rows: Sequence[Row]) -> Predict:
    """The first baseline: multiplications times a constant of the device."""
    rates = {
        fit: float(np.median([r.ms / _products(r) for r in rows if r.fit == fit]))
        for fit in {r.fit for r in rows}
    }
    return lambda row: rates.get(row.fit, float("nan")) * _products(row)


def by_regression(rows: Sequence[Row]) -> Predict:
    """The second: multiplications, weights and a constant, least squares of relative errors."""
    lines = {}
    for fit in {r.fit for r in rows}:
        own = [r for r in rows if r.fit == fit]
        scaled = np.array([_features(r) for r in own]) / np.array([[r.ms] for r in own])
        lines[fit] = np.linalg.lstsq(scaled, np.ones(len(own)), rcond=None)[0]
    return lambda row: float(lines[row.fit] @ _features(row)) if row.fit in lines else float("nan")


def unseen(
    rows: Sequence[Row], fits: Sequence[str], learn: Callable[[Sequence[Row]], Predict]
) -> list[tuple[Row, float]]:
    """Each row of ``fits`` with the time that is predicted when nothing of its family was seen."""
    found = []
    for family in sorted({r.family for r in rows if r.fit in fits}):
        predict = learn([r for r in rows if r.family != family])
        found += [(r, predict(r)) for r in rows if r.fit in fits and r.family == family]
    return [(r, ms) for r, ms in found if np.isfinite(ms)]


def _products(row: Row) -> float:
    return float(row.work[: len(PRODUCTS)].sum())


def _features(row: Row) -> Vector:
    return np.array([1.0, _products(row), row.work[UNITS.index("weights")]])
