"""The results as Markdown tables and as curves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

Found = dict[str, Any]
Line = tuple[str, ...]


def markdown(found: Found) -> Iterator[str]:
    """Every table that there are results for."""
    rows = found["rows"]
    for epochs in sorted({r["epochs"] for r in rows}):
        own = [r for r in rows if r["epochs"] == epochs]
        how = f"{epochs} epochs with labels" if epochs else "no training"
        yield f"Points at a share of multiply-accumulates, {how} (weights left in brackets)"
        yield _points([r for r in own if r["counted"] == "macs" and not r["refused"]])
        sparse = [r for r in own if r["counted"] == "parameters" and not r["refused"]]
        if sparse:
            yield (
                f"Points at a share of weights that are not zero, {how} "
                "(multiply-accumulates of the dense model in brackets)"
            )
            yield _points(sparse)
    if any(r["refused"] for r in rows):
        yield "Refused"
        yield _refused(r for r in rows if r["refused"])
    if "speed" in found:
        yield "Least time of one inference, one thread, float32"
        yield _speed(found["speed"])
    if "int8" in found:
        yield "Points, 8 bits on top of pruning"
        yield _int8(found["int8"])


def short(found: Found) -> str:
    """edgemix as it comes beside the best of each peer's settings, at shares of the work."""
    rows = [r for r in found["rows"] if r["counted"] == "macs" and not r["refused"]]
    shares = sorted({r["share"] for r in rows}, reverse=True)
    lines: list[Line] = []
    for epochs in sorted({r["epochs"] for r in rows}):
        for model in dict.fromkeys(r["model"] for r in rows):
            own = [r for r in rows if (r["model"], r["epochs"]) == (model, epochs)]
            for method in dict.fromkeys(r["method"] for r in own):
                tried = [r for r in own if r["method"] == method]
                if method == "edgemix":
                    tried = [r for r in tried if r["setting"] == "refit"]
                best = {s: max((r for r in tried if r["share"] == s), key=_worth, default=None)
                        for s in shares}  # fmt: skip
                cells = ("–" if r is None else f"{r['points']:.2f}" for r in best.values())
                after = f"{epochs} epochs" if epochs else "no training"
                whole = f"{own[0]['float_points']:.2f}"
                lines.append((model, after, method, whole, *cells))
    return _table(("model", "after", "by", "whole", *(f"{s:.0%}" for s in shares)), lines)


def _worth(row: Found) -> float:
    points: float = row["points"]
    return points


def _refused(rows: Iterable[Found]) -> str:
    """Once for each reason: to whom it was given, and for which settings."""
    found: dict[Line, dict[str, None]] = {}
    for row in rows:
        found.setdefault((row["method"], row["refused"], row["model"]), {})[row["setting"]] = None
    merged: dict[Line, list[str]] = {}
    for (method, why, model), settings in found.items():
        merged.setdefault((method, "; ".join(settings), why), []).append(model)
    lines = [(m, setting, ", ".join(models), why) for (m, setting, why), models in merged.items()]
    return _table(("method", "setting", "models", "why"), lines)


def _points(rows: list[Found]) -> str:
    shares = sorted({r["share"] for r in rows}, reverse=True)
    lines: list[Line] = []
    for model in dict.fromkeys(r["model"] for r in rows):
        own = [r for r in rows if r["model"] == model]
        best = {
            share: max(r["points"] for r in own if r["share"] == share)
            for share in {r["share"] for r in own}
        }
        lines.append(
            (f"**{model}**", "whole", f"{own[0]['float_points']:.2f}", *[""] * (len(shares) - 1))
        )
        for method, setting in dict.fromkeys((r["method"], r["setting"]) for r in own):
            cells = {r["share"]: r for r in own if (r["method"], r["setting"]) == (method, setting)}
            lines.append(("", _method(cells), *(_cell(cells.get(s), best) for s in shares)))
    return _table(("model", "method", *(f"{s:.0%}" for s in shares)), lines)


def _method(cells: dict[float, Found]) -> str:
    row = next(iter(cells.values()))
    return f"{row['method']}, {row['setting']}{' (labels)' if row['labels'] else ''}"


def _cell(row: Found | None, best: dict[float, float]) -> str:
    if row is None:
        return "–"
    bold = "**" if row["points"] >= best[row["share"]] else ""
    other = row["weights"] if row["counted"] == "macs" else row["macs"]
    return f"{bold}{row['points']:.2f}{bold} ({other:.0%})"


def _speed(rows: list[Found]) -> str:
    times = {(r["runtime"], r["method"], r["what"]): r["least_ms"] for r in rows}
    lines = []
    for runtime in dict.fromkeys(r["runtime"] for r in rows):
        for small, whole in _BESIDE:
            before, after = times[runtime, whole, "whole"], times[runtime, small, "pruned"]
            lines.append(
                (runtime, small, f"{before:.3f} ms", f"{after:.3f} ms", f"{before / after:.2f}")
            )
    name = f"{rows[0]['model']}, {rows[0]['share']:.0%} of MACs"
    return _table((name, "by", "whole", "pruned", "faster"), lines)


_BESIDE = (
    ("edgemix", "edgemix"),
    ("edgemix, three branches", "edgemix"),
    ("torch-pruning", "torch export"),
)
"""Who pruned, and whose whole model it is held against."""


def _int8(rows: list[Found]) -> str:
    lines = [
        (
            r["model"], f"{r['whole']:.2f}", f"{r['whole_int8']:.2f}", f"{r['pruned']:.2f}",
            f"{r['pruned_int8']:.2f}", f"{r['whole'] - r['whole_int8']:+.2f}",
            f"{r['pruned'] - r['pruned_int8']:+.2f}",
        )
        for r in rows
    ]  # fmt: skip
    names = (
        "whole, float",
        "int8",
        f"{rows[0]['share']:.0%} of MACs, float",
        "int8",
        "drop, whole",
        "drop, pruned",
    )
    return _table(("model", *names), lines)


def _table(names: Line, lines: Iterable[Line]) -> str:
    ruled = "|" + "---|" * len(names)
    return "\n".join(
        (f"| {' | '.join(names)} |", ruled, *(f"| {' | '.join(line)} |" for line in lines))
    )


_W, _H, _LEFT, _TOP = 300, 190, 40, 24
_COLOURS = {"edgemix": "#0b6e4f", "torch-pruning": "#c0392b", "nncf": "#2c5fa8"}


def svg(rows: list[Found]) -> str:
    """Points against the share of multiply-accumulates: a plot for every model and training."""
    shown = [r for r in rows if r["counted"] == "macs" and not r["refused"]]
    plots = list(dict.fromkeys((r["model"], r["epochs"]) for r in shown))
    models = list(dict.fromkeys(m for m, _ in plots))
    turns = sorted({e for _, e in plots})
    width, height = len(models) * (_W + 20), len(turns) * (_H + 60) + 20
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">'
    ]
    for model, epochs in plots:
        own = [r for r in shown if (r["model"], r["epochs"]) == (model, epochs)]
        x, y = models.index(model) * (_W + 20), turns.index(epochs) * (_H + 60)
        title = f"{model}, {f'{epochs} epochs' if epochs else 'no training'}"
        parts.append(f'<g transform="translate({x} {y})">{"".join(_plot(own, title))}</g>')
    for i, (method, colour) in enumerate(_COLOURS.items()):
        if any(r["method"] == method for r in shown):
            parts.append(
                f'<text x="{_LEFT + 130 * i}" y="{height - 4}" fill="{colour}">{method}</text>'
            )
    return "".join((*parts, "</svg>\n"))


def _plot(rows: list[Found], title: str) -> Iterator[str]:
    top = max(r["float_points"] for r in rows)
    low = max(min(r["points"] for r in rows), 0.0) - 1.0
    shares = [r["macs"] for r in rows]
    first, last = min(shares) - 0.02, max(shares) + 0.02

    def place(row: Found) -> str:
        right = (row["macs"] - first) / (last - first)
        up = (max(row["points"], low) - low) / (top - low)
        return f"{_LEFT + right * (_W - _LEFT):.1f},{_TOP + (1 - up) * (_H - _TOP):.1f}"

    yield f'<text x="{_LEFT}" y="14" font-weight="bold">{title}</text>'
    yield f'<rect x="{_LEFT}" y="{_TOP}" width="{_W - _LEFT}" height="{_H - _TOP}" fill="none" stroke="#bbb"/>'
    for value, at in ((top, _TOP + 4), (low, _H)):
        yield f'<text x="{_LEFT - 4}" y="{at}" text-anchor="end">{value:.1f}</text>'
    for share, anchor, at in ((first, "start", _LEFT), (last, "end", _W)):
        yield f'<text x="{at}" y="{_H + 14}" text-anchor="{anchor}">{share:.0%} of MACs</text>'
    for method, setting in dict.fromkeys((r["method"], r["setting"]) for r in rows):
        own = [r for r in rows if (r["method"], r["setting"]) == (method, setting)]
        points = " ".join(place(r) for r in sorted(own, key=lambda r: r["macs"]))
        first_choice = 2.4 if setting == "refit" else 1.1
        yield (
            f'<polyline fill="none" stroke="{_COLOURS[method]}" stroke-width="{first_choice}" points="{points}">'
            f"<title>{method}, {setting}</title></polyline>"
        )
