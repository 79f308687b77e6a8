"""The picture of a search: one point a trial, and the front that nothing beats."""

# ruff: noqa: E501  (markup reads better unbroken)

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from edgemix.search.outcome import front

WIDTH, HEIGHT = 640, 340
LEFT, RIGHT, TOP, BOTTOM = 76, 24, 14, 46
_TICKS = 5
_ROOM = 0.08
_NEAR = 15, 11
"""Pixels between two labels, across and down."""

Show = Callable[[float], str]


@dataclass(frozen=True)
class Point:
    """A trial in the plane of two objectives."""

    name: str
    x: float
    y: float
    best: bool
    """Whether no trial beats it in all objectives, of which a picture shows two."""
    passed: bool
    hover: str


@dataclass(frozen=True)
class Axis:
    """From values to pixels."""

    title: str
    low: float
    high: float
    start: float
    end: float
    show: Show

    @classmethod
    def over(
        cls, title: str, values: Sequence[float], start: float, end: float, show: Show
    ) -> Axis:
        """With some room around the values."""
        low, high = min(values), max(values)
        room = (high - low) * _ROOM or abs(high) * _ROOM or 1.0
        return cls(title, low - room, high + room, start, end, show)

    def at(self, value: float) -> float:
        """Where a value is."""
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Round values, about five."""
        rough = (self.high - self.low) / _TICKS
        size = 10.0 ** math.floor(math.log10(rough))
        step = next(size * m for m in (1, 2, 5, 10) if size * m >= rough)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1) if step * i >= 0]


def scatter(points: Sequence[Point], x: tuple[str, Show], y: tuple[str, Show]) -> Markup:
    """Trials by two objectives, both better towards the corner at the lower left.

    Filled points are on the front of all objectives; the stairs are the front of these two. A
    point with a red rim missed a gate.
    """
    across = Axis.over(x[0], [p.x for p in points], LEFT, WIDTH - RIGHT, x[1])
    up = Axis.over(y[0], [p.y for p in points], HEIGHT - BOTTOM, TOP, y[1])
    parts = [
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escape(y[0])} against {escape(x[0])} of {len(points)} trials">',
        *_frame(across, up),
        _stairs(points, across, up),
    ]
    labels: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda p: p.best):
        px, py = across.at(point.x), up.at(point.y)
        kind = ("best" if point.best else "beaten") + ("" if point.passed else " missed")
        parts.append(
            f'<circle class="{kind}" cx="{px:.1f}" cy="{py:.1f}" r="{6 if point.best else 4}"><title>{escape(point.hover)}</title></circle>'
        )
        free = all(abs(px - a) > 2 * _NEAR[0] or abs(py - b) > _NEAR[1] for a, b in labels)
        if point.best and free:
            labels.append((px, py))
            parts.append(f'<text x="{px + 9:.1f}" y="{py - 7:.1f}">{escape(point.name)}</text>')
    parts.append("</svg>")
    return Markup("".join(parts))


def _frame(across: Axis, up: Axis) -> list[str]:
    floor, wall = HEIGHT - BOTTOM, LEFT
    parts = []
    for tick in across.ticks():
        x = across.at(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{floor}"/>')
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{floor + 16}" text-anchor="middle">{escape(across.show(tick))}</text>'
        )
    for tick in up.ticks():
        y = up.at(tick)
        parts.append(
            f'<line class="grid" x1="{wall}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{wall - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(up.show(tick))}</text>'
        )
    middle = (TOP + floor) / 2
    parts.append(
        f'<text x="{(wall + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(across.title)}</text>'
        f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{escape(up.title)}</text>'
    )
    return parts


def _stairs(points: Sequence[Point], across: Axis, up: Axis) -> str:
    """Along the points that none beats in these two objectives."""
    best = front((i, (p.x, p.y)) for i, p in enumerate(points))
    steps = sorted((across.at(points[i].x), up.at(points[i].y)) for i in best)
    corners = [f"{steps[0][0]:.1f},{TOP}"]
    for (x, y), (after, _) in zip(steps, [*steps[1:], (WIDTH - RIGHT, 0)], strict=True):
        corners += [f"{x:.1f},{y:.1f}", f"{after:.1f},{y:.1f}"]
    return f'<polyline class="front" points="{" ".join(corners)}"/>'
