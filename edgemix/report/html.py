"""The report, and a profile, as one page that needs nothing else."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

from edgemix.latency.profile import Profile
from edgemix.latency.samples import FLAGS
from edgemix.latency.units import duration
from edgemix.report import plots
from edgemix.report.schema import PruningReport, Report, TargetResult


def render(report: Report) -> str:
    """The whole page: styles, pictures and the one script are inline."""
    return _template("report.html.jinja").render(
        report=report,
        plots=plots,
        kinds=plots.KINDS,
        tally=_tally,
        rule=_rule,
        worst=sorted(
            (layer for layer in report.layers if layer.sqnr_db is not None),
            key=lambda layer: layer.sqnr_db or 0.0,
        )[:_WORST],
        failed=[v for t in report.targets for v in t.verdicts if not v.passed],
    )


def render_profile(profile: Profile) -> str:
    """Where an inference's time goes, as one page."""
    flags = (f"{name}: {text}" for name, text in profile.environment.items() if name in FLAGS)
    return _template("profile.html.jinja").render(
        p=profile, plots=plots, notes=(*profile.notes, *flags), worst=_BARS
    )


def render_pruning(report: PruningReport) -> str:
    """What pruning cost and saved, as one page."""
    return _template("pruning.html.jinja").render(r=report, plots=plots)


_WORST = 12
_BARS = 24


def _template(name: str) -> Template:
    environment = Environment(
        loader=PackageLoader("edgemix.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        bytes=_bytes, ms=partial(duration, digits=3), percent=_percent, count=_count
    )
    return environment.get_template(name)


def _rule(exception: dict[str, Any]) -> str:
    """A layer's exception in words."""
    if exception["leave_float"]:
        return "left in float"
    bits = (f"{n} in {exception[n]} bits" for n in _WIDTHS if exception.get(n) is not None)
    return ", ".join(bits)


_WIDTHS = ("weights", "activations", "operands")


def _tally(target: TargetResult) -> list[tuple[str, str, int]]:
    """Operators by type and arithmetic, those that are not integer or fixed first."""
    counted = Counter((p.op, p.achieved) for p in target.precision)
    rows = [(op, achieved, n) for (op, achieved), n in counted.items()]
    return sorted(rows, key=lambda row: (row[1] in ("integer", "fixed"), row[0]))


def _bytes(count: int) -> str:
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1e6:.2f} MB"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _count(number: int) -> str:
    return f"{number:,}"
