"""``edgemix compare``: two deployments side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

_LAYERS = 10


def compare(
    first: Annotated[Path, typer.Argument(help="A deployment's folder, or its report.json.")],
    second: Annotated[Path, typer.Argument(help="Another one's.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show two deployments of a model side by side: quality, size, time, and layers.

    Layers are matched by name; those whose quality differs most come first.
    """
    from edgemix.cli import console
    from edgemix.report import comparison

    found = comparison.compare(comparison.read(first), comparison.read(second))
    if as_json:
        console.print_json(found)
        return
    a, b = found["reports"]
    console.out.print(
        console.plain_table(
            ("", a, b), [(r["what"], r["first"], r["second"]) for r in found["figures"]]
        )
    )
    rows = [
        (layer["layer"], _db(layer["first"]), _db(layer["second"]), f"{layer['gain']:+.1f} dB")
        for layer in found["layers"][:_LAYERS]
    ]
    if rows:
        console.out.print(console.plain_table(("layers that differ most", a, b, "gain"), rows))


def _db(value: float | None) -> str:
    return "identical" if value is None else f"{value:.1f} dB"
