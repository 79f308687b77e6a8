"""A search as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from edgemix.search import plot
from edgemix.search.outcome import shown
from edgemix.search.space import LOSS, SIZE, TIMED
from edgemix.search.study import TRIALS, Trial


def render(title: str, objectives: Sequence[str], trials: Sequence[Trial]) -> str:
    """The whole page: a picture for each pair of objectives with the first, then every trial."""
    environment = Environment(
        loader=PackageLoader("edgemix.search"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    ended = [t for t in trials if t.values]
    labels = any(t.accuracy is not None for t in ended)
    others = objectives[1:] if ended else ()
    template = environment.get_template("search.html.jinja")
    return template.render(
        title=title, objectives=objectives, folder=TRIALS,
        trials=sorted(ended, key=lambda t: (not t.front, t.values[objectives[0]])),
        failed=[t for t in trials if t.failed],
        pictures=[_picture(ended, name, objectives[0], labels=labels) for name in others],
        heading=partial(heading, labels=labels), shown=partial(shown, labels=labels),
        choices=list(dict.fromkeys(name for t in trials for name in t.params)),
    )  # fmt: skip


def heading(name: str, *, labels: bool) -> str:
    """An objective in words, a time with its kind."""
    if name == LOSS:
        return "wrong answers" if labels else "error of the outputs"
    return "largest artifact" if name == SIZE else f"{name}, {TIMED.get(name, 'estimated')}"


def _picture(trials: Sequence[Trial], across: str, up: str, *, labels: bool) -> Markup:
    points = [
        plot.Point(
            t.name, t.values[across], t.values[up], t.front, t.passed,
            f"{t.name}: {', '.join(t.params.values())}; {shown(up, t.values[up], labels=labels)}, "
            f"{shown(across, t.values[across], labels=labels)}",
        )
        for t in trials
    ]  # fmt: skip
    axes = [
        (heading(name, labels=labels), partial(shown, name, labels=labels)) for name in (across, up)
    ]
    return plot.scatter(points, *axes)
