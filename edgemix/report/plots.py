"""The report's pictures: inline SVG, from pure functions."""

# ruff: noqa: E501  (markup reads better unbroken)

from __future__ import annotations

from markupsafe import Markup, escape

from edgemix.latency.profile import Profile
from edgemix.latency.units import duration
from edgemix.report.schema import Effect, Layer, Precision, PrunedPoint, StateResult

ROW = 20
LABEL = 250
PLOT = 430

KINDS = ("integer", "fixed", "float16 between integers", "float between integers", "float")


def layer_quality(layers: tuple[Layer, ...]) -> Markup:
    """Horizontal bars of SQNR in dB, in the graph's order; the three worst stand out.

    A value without any difference gets a full bar and the word "exact". A mark across a bar is the
    SQNR of the value's own rounding: what lies between was lost before it.
    """
    shown = [layer.sqnr_db for layer in layers if layer.sqnr_db is not None]
    top = max(shown, default=1.0)
    worst = sorted(shown)[:3]
    height = ROW * len(layers) + 26
    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 70} {height}" role="img" '
        f'aria-label="SQNR of every quantized value in dB">'
    ]
    for tick in range(0, int(top) + 1, 10):
        x = LABEL + PLOT * tick / top
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick} dB</text>'
        )
    for i, layer in enumerate(layers):
        y = i * ROW
        value = top if layer.sqnr_db is None else max(layer.sqnr_db, 0.0)
        kind = "exact" if layer.sqnr_db is None else "worst" if layer.sqnr_db in worst else "bar"
        text = "exact" if layer.sqnr_db is None else f"{layer.sqnr_db:.1f}"
        name = f"{layer.module}.{layer.op}" if layer.module else layer.node
        hover = f"{layer.node} ({layer.source}): {layer.encoding}; {layer.clipped:.2%} at the range's ends"
        own = layer.own_sqnr_db
        if own is not None:
            hover += f"; {own:.1f} dB by its own rounding alone"
        at = LABEL + PLOT * min(max(own or 0.0, 0.0), top) / top
        mark = (
            ""
            if own is None
            else f'<line class="own" x1="{at:.1f}" x2="{at:.1f}" y1="{y + 3}" y2="{y + ROW - 3}"/>'
        )
        parts.append(
            f"<g><title>{escape(hover)}</title>"
            f'<text class="name" x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(_short(name))}</text>'
            f'<rect class="{kind}" x="{LABEL}" y="{y + 3}" width="{PLOT * value / top:.1f}" height="{ROW - 6}" rx="2"/>{mark}'
            f'<text class="value" x="{LABEL + PLOT * value / top + 6:.1f}" y="{y + 14}">{text}</text></g>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


def effects(effects: tuple[Effect, ...]) -> Markup:
    """Horizontal bars: SQNR of the outputs after each algorithm; one that was not kept is hollow."""
    top = max((e.sqnr_db for e in effects if e.sqnr_db is not None), default=1.0) or 1.0
    height = ROW * len(effects)
    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 110} {height}" role="img" '
        f'aria-label="SQNR of the outputs after every algorithm in dB">'
    ]
    before: float | None = None
    for i, effect in enumerate(effects):
        y, now = i * ROW, effect.sqnr_db
        width = PLOT * (top if now is None else max(now, 0.0)) / top
        text = "identical" if now is None else f"{now:.1f} dB"
        if now is not None and before is not None:
            text += f" ({now - before:+.1f}{'' if effect.kept else ', not kept'})"
        before = now if effect.kept else before
        parts.append(
            f'<text class="name" x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(effect.algorithm)}, {effect.seconds:.1f} s</text>'
            f'<rect class="{"bar" if effect.kept else "room"}" x="{LABEL}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" rx="2"/>'
            f'<text class="value" x="{LABEL + width + 6:.1f}" y="{y + 14}">{text}</text>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


def times(profile: Profile, most: int) -> Markup:
    """Horizontal bars: shares of the time, the worst operators first; marks are the estimates.

    Below them stand all other operators together, and what no operator accounts for, hollow.
    """
    worst, rest = profile.operators[:most], profile.operators[most:]
    rows = [
        (f"{o.where.partition(',')[0]} {o.op}" if o.where else o.name, o.ms, o.estimated, "bar")
        for o in worst
    ]
    if rest:
        rows.append((f"{len(rest)} more operators", sum(o.ms for o in rest), None, "exact"))
    rows.append(("no operator", profile.overhead_ms, None, "room"))
    total = profile.total_ms
    top = max(max(ms / total, estimated or 0.0) for _, ms, estimated, _ in rows)
    height = ROW * len(rows)
    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 240} {height}" role="img" '
        f'aria-label="share of the time of every operator">'
    ]
    for i, (name, ms, estimated, kind) in enumerate(rows):
        y, width = i * ROW, PLOT * max(ms / total, 0.0) / top
        at = LABEL + PLOT * (estimated or 0.0) / top
        mark = (
            ""
            if estimated is None
            else f'<line class="own" x1="{at:.1f}" x2="{at:.1f}" y1="{y + 2}" y2="{y + ROW - 2}"/>'
        )
        text = f"{duration(ms, 3)}, {ms / total:.1%}" + (
            "" if estimated is None else f" (estimated {estimated:.1%})"
        )
        parts.append(
            f"<g><title>{escape(name)}: {text}</title>"
            f'<text class="name" x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(_short(name, 40))}</text>'
            f'<rect class="{kind}" x="{LABEL}" y="{y + 3}" width="{width:.1f}" height="{ROW - 6}" rx="2"/>{mark}'
            f'<text class="value" x="{max(LABEL + width, at) + 6:.1f}" y="{y + 14}">{text}</text></g>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


CURVE = 34


def growth(states: tuple[StateResult, ...]) -> Markup:
    """One curve a state: its error over the steps, all on one scale, the largest one written."""
    top = max((max(s.error) for s in states), default=0.0) or 1.0
    last = states[0].steps[-1] if states else 1
    height = CURVE * len(states) + 26
    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 110} {height}" role="img" '
        f'aria-label="error of every state over {last} steps">'
    ]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        x = LABEL + PLOT * share
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{height - 22}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{round(last * share):,}</text>'
        )
    for i, state in enumerate(states):
        base = (i + 1) * CURVE - 4
        points = " ".join(
            f"{LABEL + PLOT * step / last:.1f},{base - (CURVE - 8) * error / top:.1f}"
            for step, error in zip(state.steps, state.error, strict=True)
        )
        kind = "curve" if state.bounded else "curve worst"
        found = f"{max(state.error):.2%}, {'bounded' if state.bounded else 'grows'}"
        parts.append(
            f"<g><title>{escape(state.state)}: {state.bits} bits</title>"
            f'<text class="name" x="{LABEL - 8}" y="{base - 4}" text-anchor="end">{escape(_short(state.state))}</text>'
            f'<line class="grid" x1="{LABEL}" x2="{LABEL + PLOT}" y1="{base}" y2="{base}"/>'
            f'<polyline class="{kind}" points="{points}"/>'
            f'<text class="value" x="{LABEL + PLOT + 8}" y="{base - 4}">{found}</text></g>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


_TALL = 260


def trade_off(points: tuple[PrunedPoint, ...]) -> Markup:
    """What pruning costs: accuracy, or SQNR without labels, over the share of the whole's work.

    The chosen point stands out; without labels the whole model, which has no error, is not drawn.
    """
    labelled = all(p.accuracy is not None for p in points)
    values = ((p, p.sqnr_db if p.accuracy is None else 100 * p.accuracy) for p in points)
    shown = [(p, v) for p, v in values if v is not None]
    if len(shown) < 2:
        return Markup("")
    low, high = min(v for _, v in shown), max(v for _, v in shown)
    room = max(0.08 * (high - low), 0.5)
    low, high = low - room, high + room
    whole = max(p.macs for p in points)
    left, right, bottom = 70, LABEL + PLOT + 40, _TALL - 44

    def place(point: PrunedPoint, y: float) -> tuple[float, float]:
        return (
            left + (right - left) * point.macs / whole,
            12 + (bottom - 12) * (high - y) / (high - low),
        )

    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 70} {_TALL}" role="img" '
        f'aria-label="{"accuracy" if labelled else "SQNR"} over multiply-accumulates">'
    ]
    for i in range(5):
        y = low + (high - low) * i / 4
        at = 12 + (bottom - 12) * (high - y) / (high - low)
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{y:.1f}</text>'
        )
    for i in range(5):
        x = left + (right - left) * i / 4
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="12" y2="{bottom}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{25 * i} %</text>'
        )
    title = "accuracy in %" if labelled else "SQNR in dB"
    parts.append(
        f'<text class="tick" x="{right}" y="{_TALL - 8}" text-anchor="end">multiply-accumulates, of {whole:,}; up: {title}</text>'
    )
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*entry) for entry in shown))
    parts.append(f'<polyline class="curve" points="{line}"/>')
    for point, y in shown:
        x, at = place(point, y)
        text = f"{point.asked}: {y:.2f}, {point.macs:,} MACs, {point.parameters:,} weights"
        kind = "worst" if point.chosen else "bar"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{at:.1f}" r="{6 if point.chosen else 4}">'
            f"<title>{escape(text)}</title></circle>"
        )
        if point.chosen:
            parts.append(
                f'<text class="value" x="{x:.1f}" y="{at - 10:.1f}" text-anchor="middle">chosen: {y:.2f}</text>'
            )
    parts.append("</svg>")
    return Markup("".join(parts))


def arithmetic(precision: tuple[Precision, ...]) -> Markup:
    """One stacked bar: how many operators run in which arithmetic."""
    counts = {kind: sum(p.achieved == kind for p in precision) for kind in KINDS}
    total = max(sum(counts.values()), 1)
    parts = ['<svg class="stack" viewBox="0 0 400 16" preserveAspectRatio="none" role="img" ']
    parts.append(f'aria-label="{", ".join(f"{n} in {k}" for k, n in counts.items() if n)}">')
    x = 0.0
    for number, (kind, count) in enumerate(counts.items()):
        width = 400 * count / total
        if count:
            parts.append(
                f'<rect class="k{number}" x="{x:.2f}" y="0" width="{width:.2f}" height="16">'
                f"<title>{escape(kind)}: {count}</title></rect>"
            )
        x += width
    parts.append("</svg>")
    return Markup("".join(parts))


def budget(p50: float, p90: float, p99: float, limit: float | None) -> Markup:
    """Median, 90 % and 99 % marks on an axis that ends at the budget, or a little beyond p99."""
    end = max(p99, limit or 0.0) * 1.1 or 1.0
    at = [300 * v / end for v in (p50, p90, p99)]
    parts = [
        '<svg class="budget" viewBox="0 0 300 18" role="img" aria-label="latency">',
        '<line class="grid" x1="0" x2="300" y1="9" y2="9"/>',
        f'<line class="span" x1="{at[0]:.1f}" x2="{at[2]:.1f}" y1="9" y2="9"/>',
        f'<circle class="p99" cx="{at[2]:.1f}" cy="9" r="3"><title>p99 {duration(p99)}</title></circle>',
        f'<circle class="p90" cx="{at[1]:.1f}" cy="9" r="4"><title>p90 {duration(p90)}</title></circle>',
        f'<circle class="p50" cx="{at[0]:.1f}" cy="9" r="5"><title>p50 {duration(p50)}</title></circle>',
    ]
    if limit is not None:
        x = 300 * limit / end
        parts.append(f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="1" y2="17"/>')
    parts.append("</svg>")
    return Markup("".join(parts))


def resources(used: dict[str, int], available: dict[str, int]) -> Markup:
    """Horizontal bars: the share of every resource that the part has; a full one is all of it."""
    names = [name for name in used if available.get(name)]
    height = ROW * len(names)
    parts = [
        f'<svg class="plot" viewBox="0 0 {LABEL + PLOT + 70} {height}" role="img" '
        f'aria-label="share of the part that the design takes">'
    ]
    for i, name in enumerate(names):
        y, share = i * ROW, used[name] / available[name]
        full = PLOT * min(share, 1.0)
        text = f"{used[name]:,} of {available[name]:,} ({share:.1%})"
        inside = share > 0.5
        x, anchor = (LABEL + full - 6, "end") if inside else (LABEL + full + 6, "start")
        parts.append(
            f'<text class="name" x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name.upper())}</text>'
            f'<rect class="room" x="{LABEL}" y="{y + 3}" width="{PLOT}" height="{ROW - 6}" rx="2"/>'
            f'<rect class="{"worst" if share > 1 else "bar"}" x="{LABEL}" y="{y + 3}" width="{full:.1f}" height="{ROW - 6}" rx="2"/>'
            f'<text class="value{" inside" if inside else ""}" x="{x:.1f}" y="{y + 14}" text-anchor="{anchor}">{text}</text>'
        )
    parts.append("</svg>")
    return Markup("".join(parts))


def _short(name: str, limit: int = 36) -> str:
    return name if len(name) <= limit else "…" + name[1 - limit :]
