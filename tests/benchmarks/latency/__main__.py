"""Fit the latency estimator and cross-validate it: ``python -m tests.benchmarks.latency``.

Reads the published latencies and the work of their models in ``edgemix/latency/facts``, and writes
``fits.json`` there.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import typer
from rich.console import Console
from rich.progress import track
from scipy.stats import kendalltau

from edgemix import files
from edgemix.latency import device, estimate
from edgemix.latency.work import PRODUCTS
from tests.benchmarks.latency.fit import (
    Row,
    by_costs,
    by_multiplications,
    by_regression,
    fitted,
    unseen,
)

FACTS = Path(estimate.__file__).with_name("facts")

_FEW = 8
"""Rows of a fit below which its cross-validation says nothing: others stand for it."""
ESTIMATORS = {
    "estimator": by_costs,
    "multiplications": by_multiplications,
    "regression": by_regression,
}


def rows() -> list[Row]:
    """The published latencies that count; those whose note says why not are left out."""
    models = json.loads((FACTS / "models.json").read_text())
    with (FACTS / "latencies.csv").open() as file:
        return [
            Row(r["fit"], r["model"], models[r["model"]]["family"], float(r["ms"]),
                np.array(models[r["model"]]["work"]))
            for r in csv.DictReader(file)
            if not r["note"]
        ]  # fmt: skip


def scores(found: Sequence[tuple[Row, float]]) -> dict[str, float]:
    """Median relative error, share within a tenth, and Kendall's rank correlation."""
    error = np.array([abs(ms / r.ms - 1) for r, ms in found])
    rank = kendalltau([r.ms for r, _ in found], [ms for _, ms in found]).statistic
    return {
        "median_error": round(float(np.median(error)), 4),
        "within_tenth": round(float((error <= 0.1).mean()), 4),
        "rank_correlation": round(float(rank), 4),
    }


def _spread(found: Sequence[tuple[Row, float]]) -> list[float]:
    """Of measured over estimated time, what a tenth of the models is below, and above."""
    return [round(float(q), 4) for q in np.quantile([r.ms / ms for r, ms in found], (0.1, 0.9))]


def _judges(fit: str, counts: Mapping[str, int]) -> str:
    """The start of the names of the fits by whose models one is judged: itself, if it has enough.

    Then those of its chip, which the first two words of a name tell, then all of its engine.
    """
    engine, _, device = fit.partition("/")
    chip = f"{engine}/{'-'.join(device.split('-')[:2])}"
    starts = (fit, chip, f"{engine}/")
    return next(s for s in starts if sum(n for f, n in counts.items() if f.startswith(s)) >= _FEW)


def _shipped() -> set[str]:
    return {r.fit for name in device.names() for r in device.load(name).runtimes}


def main(write: bool = True) -> None:
    """Fit, cross-validate by model family beside both baselines, and print what was found."""
    every, result = rows(), {}
    costs = fitted(every)
    counts = Counter(r.fit for r in every)
    engines = sorted({r.engine for r in every})
    for engine in track(engines, "cross-validating", console=Console(stderr=True)):
        own = [r for r in every if r.engine == engine]
        names = sorted({r.fit for r in own})
        predicted = {name: unseen(own, names, learn) for name, learn in ESTIMATORS.items()}
        for fit in sorted(_shipped() & set(names)):
            judges = _judges(fit, counts)
            mine = {
                name: [(r, ms) for r, ms in found if r.fit.startswith(judges)]
                for name, found in predicted.items()
            }
            work = np.array([r.work for r in own if r.fit == fit])
            result[fit] = {
                "costs": [float(f"{c:.6g}") for c in costs[fit]],
                "models": len(work),
                "spread": _spread(mine["estimator"]),
                "largest": [round(float(m), 3) for m in work.max(axis=0)],
                "smallest": round(float(work[:, : len(PRODUCTS)].sum(1).min()), 3),
                "accuracy": {name: scores(found) for name, found in mine.items()},
                "judged_by": f"{len(mine['estimator'])} rows of {judges}",
            }
    for fit, found in result.items():
        line = [f"{fit:40}"]
        for name, s in found["accuracy"].items():
            line.append(f"{name} {s['median_error']:.1%} τ {s['rank_correlation']:.2f}")
        print("  ".join(line), " by", found["judged_by"])
    if write:
        files.write_text(FACTS / "fits.json", json.dumps(result) + "\n")


if __name__ == "__main__":
    typer.run(main)
