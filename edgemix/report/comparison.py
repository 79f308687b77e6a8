"""Two reports side by side, as data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from edgemix.errors import InputError
from edgemix.report.schema import Report, TargetResult


def read(path: Path) -> Report:
    """The report of a deployment's folder, or in a file.

    Raises:
        InputError: there is none, or it is damaged.
    """
    file = path / "report.json" if path.is_dir() else path
    try:
        return Report.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InputError(
            f"there is no report {file}", do="give a folder of edgemix deploy"
        ) from error
    except ValidationError as error:
        raise InputError(f"{file} is no report of this edgemix, or it is damaged") from error


def compare(first: Report, second: Report) -> dict[str, Any]:
    """Figures of both, and layers in the order of how much their quality differs.

    Raises:
        InputError: they are of different models.
    """
    if first.model.source != second.model.source:
        raise InputError(
            f"the reports are of different models: {first.model.source}, {second.model.source}"
        )
    return {
        "reports": [_title(first), _title(second)],
        "figures": [
            {"what": what, "first": a, "second": b}
            for (what, a), (_, b) in zip(
                _figures(first, second), _figures(second, first), strict=True
            )
        ],
        "layers": _layers(first, second),
    }


def _title(report: Report) -> str:
    algorithms = report.recipe.get("algorithms") or ()
    return f"{report.recipe['name']}{f' + {len(algorithms)} algorithms' if algorithms else ''}"


def _figures(report: Report, other: Report) -> list[tuple[str, str]]:
    e, c = report.evaluation, report.calibration
    rows = [
        ("evaluated on", f"{e.source}, {e.samples:,}"),
        ("calibrated on", "–" if c is None else f"{c.source}, {c.samples:,}"),
        ("float accuracy", _percent(e.float_accuracy)),
        ("program accuracy", _percent(e.program_accuracy)),
        (
            "program SQNR",
            "identical" if e.program_sqnr_db is None else f"{e.program_sqnr_db:.1f} dB",
        ),
        ("left in float", str(len(report.left_float))),
    ]
    mine = {t.name: t for t in report.targets}
    for name in dict.fromkeys(t.name for t in (*report.targets, *other.targets)):
        rows += _target(name, mine.get(name))
    # The same targets in the same order for both sides.
    order = sorted(rows[6:], key=lambda row: row[0])
    return [*rows[:6], *order]


def _target(name: str, found: TargetResult | None) -> list[tuple[str, str]]:
    fidelity = None if found is None else found.fidelity
    latency = None if found is None else found.latency
    return [
        (f"{name}: accuracy", "–" if fidelity is None else _percent(fidelity.accuracy)),
        (f"{name}: latency", "–" if latency is None else f"{latency.p50_ms:.3g} ms {latency.kind}"),
        (f"{name}: size", "–" if found is None else f"{found.size:,} bytes"),
    ]


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _layers(first: Report, second: Report) -> list[dict[str, Any]]:
    others = {(layer.node, layer.op): layer for layer in second.layers}
    found = []
    for layer in first.layers:
        other = others.get((layer.node, layer.op))
        if other is None:
            continue
        a, b = layer.sqnr_db, other.sqnr_db
        gain = (_EXACT_DB if b is None else b) - (_EXACT_DB if a is None else a)
        name = f"{layer.op} {layer.module or layer.node}"
        found.append({"layer": name, "node": layer.node, "first": a, "second": b, "gain": gain})
    return sorted(found, key=lambda row: -abs(row["gain"]))


_EXACT_DB = 150.0
"""Stands for no difference at all, above what float32 can show."""
