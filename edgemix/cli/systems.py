"""``edgemix systems``: the published systems, and what each target makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgemix.systems.catalog import Slot, System
    from edgemix.systems.cell import Cell


def systems(
    names: Annotated[
        list[str] | None,
        typer.Argument(help="Systems, or patterns like 'mobilevit*'; default: all."),
    ] = None,
    group: Annotated[
        str, typer.Option(help="tiny, tier2, published, timm, comma-separated; default: all.")
    ] = "",
    to: Annotated[str, typer.Option(help="Targets, comma-separated; default: all.")] = "",
    kinds: Annotated[
        str, typer.Option(help="'float', 'integer', 'float step', 'step', comma-separated.")
    ] = "",
    run: Annotated[
        bool, typer.Option("--run", help="Measure what the results lack; goes on where it was.")
    ] = False,
    again: Annotated[
        bool, typer.Option("--again", help="With --run: also what is there already.")
    ] = False,
    jobs: Annotated[int, typer.Option(min=1, help="With --run: processes at once.")] = 1,
    limit: Annotated[float, typer.Option(min=1, help="With --run: seconds for a cell.")] = 600.0,
    results: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Results file; default: the one of this version."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Draw the matrix as a page, too.")
    ] = None,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the matrix as the README shows it.")
    ] = False,
    why: Annotated[
        bool, typer.Option("--why", help="Print every cell with its figures, or its refusal.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the cells as JSON.")] = False,
) -> None:
    """Show which published systems go to which targets: float, integers, and step by step.

    A cell keeps its contract by numbers from the target's own runtime alone: ONNX Runtime, LiteRT,
    edgemix's evaluator of Core ML packages, hls4ml's C simulation, Verilator.

    --run measures what the results file lacks, in several processes, and keeps every system's
    cells as they come: what was interrupted goes on where it was.
    """
    from edgemix import files
    from edgemix.cli import console
    from edgemix.systems import matrix
    from edgemix.systems.catalog import GROUPS, chosen, slots
    from edgemix.systems.run import RESULTS, missing, read

    rows = chosen(names or (), _listed(group) or GROUPS)
    targets, sorts = _targets(to), _kinds(kinds)
    file = results or RESULTS
    if run:
        every = [s for row in rows for s in slots(row)]
        asked = [s for s in every if s.target in targets and s.kind in sorts]
        wanted = missing(asked, () if again else read(file))
        _measure(file, wanted, jobs, limit, quiet=as_json)
    keys = {row.key for row in rows}
    cells = [c for c in read(file) if c.system in keys and c.target in targets and c.kind in sorts]
    found = list(matrix.matrices(rows, cells))
    if html is not None:
        from edgemix.systems.page import render

        files.write_text(html, render(found))
    if as_json:
        console.print_json([cell.to_json() for cell in cells])
    elif markdown:
        for line in matrix.markdown(found):
            print(line)
    else:
        _print(rows, cells, found, details=why)


def _listed(names: str) -> list[str]:
    return [name for name in names.split(",") if name]


def _targets(names: str) -> list[str]:
    from edgemix import targets as known
    from edgemix.systems.catalog import TARGETS

    for name in _listed(names):
        known.load(name)  # which says what is near to a name that is none
    return _listed(names) or list(TARGETS)


def _kinds(names: str) -> list[str]:
    from edgemix.errors import InputError
    from edgemix.systems.catalog import KINDS

    for name in _listed(names):
        if name not in KINDS:
            raise InputError(f"there is no kind {name}", do=f"kinds: {', '.join(KINDS)}")
    return _listed(names) or list(KINDS)


def _measure(file: Path, wanted: Sequence[Slot], jobs: int, limit: float, *, quiet: bool) -> None:
    from edgemix.cli import console
    from edgemix.systems.matrix import mark
    from edgemix.systems.run import fill

    with (
        console.Bars(quiet=quiet) as bars,
        bars.step(f"measure {len(wanted)} cells", float(len(wanted) or 1)) as done,
    ):
        count = 0

        def told(cell: Cell) -> None:
            nonlocal count
            count += 1
            done(count)
            bars.say(f"{mark(cell)} {cell.system} on {cell.target}, {cell.kind}: {_figures(cell)}")

        fill(file, wanted, jobs=jobs, limit_s=limit, told=told)


def _print(
    rows: Sequence[System], cells: Sequence[Cell], found: Sequence[object], *, details: bool
) -> None:
    from edgemix.cli import console
    from edgemix.systems.matrix import LEGEND, Matrix, mark

    for matrix in found:
        assert isinstance(matrix, Matrix)
        lines = [[row.name, *map(matrix.marks, places)] for row, places in matrix.rows]
        console.out.print(console.plain_table([matrix.title, *matrix.heads], lines))
        for line in matrix.tally():
            console.say(line)
    if details:
        for cell in cells:
            console.say(
                f"{mark(cell)} {cell.system} on {cell.target}, {cell.kind}: {_figures(cell)}"
            )
    console.out.print(
        "; ".join(f"{m} {meaning}" for m, meaning in LEGEND.items()),
        markup=False, highlight=False,
    )  # fmt: skip


def _figures(cell: Cell) -> str:
    if cell.refused:
        return cell.refused
    size = f"{cell.size / 1e3:,.0f} kB"
    return f"{cell.fidelity} ({cell.contract}), {size}, {cell.seconds:.1f} s, {cell.runtime}"
