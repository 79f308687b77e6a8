"""The matrix as one page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgemix.systems.catalog import Slot
from edgemix.systems.matrix import LEGEND, Matrix, mark, named


def render(found: Sequence[Matrix]) -> str:
    """The whole page: a square a cell, with its figures when it is pointed at."""
    environment = Environment(
        loader=PackageLoader("edgemix.systems"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(shade=lambda m: _SHADES[m])
    template = environment.get_template("systems.html.jinja")
    return template.render(matrices=found, legend=LEGEND, mark=mark, named=named, figures=_figures)


_SHADES = {"✓": "kept", "~": "strays", "✗": "missed", "–": "refused", "?": "unknown"}


def _figures(matrix: Matrix, slot: Slot) -> list[tuple[str, str]]:
    """What is known of a cell, for people."""
    cell = matrix.cells.get(slot)
    if cell is None:
        return [("", "not measured")]
    if cell.refused:
        return [("refused", cell.refused)]
    return [
        ("recipe", cell.recipe), ("asked", cell.contract), ("found", cell.fidelity),
        ("by", cell.runtime), ("size", f"{cell.size / 1e3:,.0f} kB"),
        ("took", f"{cell.seconds:.1f} s"),
    ]  # fmt: skip
