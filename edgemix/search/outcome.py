"""What a report says about the objectives of a search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from edgemix.errors import ToolError
from edgemix.latency.units import duration, storage
from edgemix.report.schema import Report
from edgemix.search.space import LOSS, SIZE


def values(report: Report, objectives: Sequence[str]) -> dict[str, float]:
    """Objectives by name: percent or share lost, milliseconds, bytes.

    Raises:
        ToolError: nothing gave one of them, or one is no finite number.
    """
    found = {LOSS: loss(report), SIZE: float(max(t.size for t in report.targets))}
    for target in report.targets:
        if target.latency is not None:
            found[target.name] = target.latency.p50_ms
    for target in report.targets:
        for e in target.estimates:
            # A device runs whichever of its artifacts is faster there.
            found[e.device] = min(e.latency.p50_ms, found.get(e.device, float("inf")))
    missing = [name for name in objectives if name not in found]
    if missing:
        raise ToolError(f"there is no time for {', '.join(missing)}", do="leave it out")
    broken = [name for name in objectives if not math.isfinite(found[name])]
    if broken:
        raise ToolError(
            f"{', '.join(broken)} is no finite number",
            do="look for outputs that overflow; a recipe with more bits may hold them",
        )
    return {name: found[name] for name in objectives}


def loss(report: Report) -> float:
    """What is lost, of the worst target.

    With labels the share of wrong answers in percent, and not their growth: variants of a model
    differ in what they lose before anything is quantized. Without labels the root mean square of
    the outputs' error as a share of the outputs', which the SQNR says in dB.
    """
    reached = accuracy(report)
    if reached is not None:
        return 100 * (1 - reached)
    db = report.evaluation.program_sqnr_db
    return 0.0 if db is None else 10 ** (-db / 20)


def accuracy(report: Report) -> float | None:
    """Of the worst target; of the quantized program where none was run here; None: no labels."""
    found = [t.fidelity.accuracy for t in report.targets if t.fidelity is not None]
    known = [a for a in (*found, report.evaluation.program_accuracy) if a is not None]
    return min(known, default=None)


def shown(name: str, value: float, *, labels: bool) -> str:
    """An objective's value for people."""
    if name == LOSS:
        return f"{value:.2f} %" if labels else f"{value:.2e}"
    return storage(value, 3) if name == SIZE else duration(value, 3)


def front(points: Iterable[tuple[int, Sequence[float]]]) -> set[int]:
    """Numbers of the points that no other point beats: better somewhere and nowhere worse."""
    known = list(points)
    return {
        number
        for number, mine in known
        if not any(
            all(a <= b for a, b in zip(other, mine, strict=True)) and tuple(other) != tuple(mine)
            for _, other in known
        )
    }
