"""Structured pruning beside peers: ``python -m tests.benchmarks.prune run|table|speed|int8``.

``run`` fills a results file, cell by cell, each in a process of its own: a peer that crashes is a
line that says so, and a run that is cut off goes on where it was. ``table`` prints it. ``speed``
measures what pruning buys in two runtimes, ``int8`` what quantizing costs on top of it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryFile
from threading import Lock
from typing import Annotated, Any, NamedTuple

import typer
from rich.console import Console
from rich.progress import Progress

from edgemix import files

RESULTS = Path(__file__).with_name("results.json")

app = typer.Typer(add_completion=False, help=__doc__)
Found = dict[str, Any]


class Cell(NamedTuple):
    """What one line of the table is measured for."""

    model: str
    method: str
    setting: str
    epochs: int
    share: float


@app.command()
def run(
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    methods: Annotated[str, typer.Option(help="edgemix, torch-pruning, nncf; default: all.")] = "",
    settings: Annotated[str, typer.Option(help="Separated by semicolons; default: all.")] = "",
    shares: Annotated[
        str, typer.Option(help="Of multiply-accumulates, in percent.")
    ] = "70,50,30,20",
    epochs: Annotated[int, typer.Option(help="Of training after pruning; 0: none.")] = 0,
    results: Path = RESULTS,
    jobs: Annotated[int, typer.Option(help="Cells at once, of one thread each.")] = 1,
    again: Annotated[bool, typer.Option("--again", help="Also what is there already.")] = False,
) -> None:
    """Measure every model × method × setting × share that the results file lacks."""
    from tests.benchmarks.prune.suite import MODELS, OURS, PEERS

    known = {"edgemix": tuple(OURS), **{name: own for name, (_, own) in PEERS.items()}}
    rows = read(results)["rows"]
    wanted = settings.split(";") if settings else None
    cells = [
        (model, method, setting, epochs)
        for model in (models.split(",") if models else MODELS)
        for method in (methods.split(",") if methods else known)
        for setting in known[method]
        if wanted is None or setting in wanted
    ]
    asked = [int(n) / 100 for n in shares.split(",")]
    done = {_key(row) for row in rows}
    work: dict[str, list[Cell]] = {}
    for cell in (Cell(*c, share) for share in asked for c in cells):
        if again or tuple(cell) not in done:
            work.setdefault(cell.model, []).append(cell)
    lock = Lock()
    total = sum(map(len, work.values()))
    with Progress(console=Console(stderr=True)) as bars, ThreadPoolExecutor(jobs) as pool:
        bar = bars.add_task("measuring", total=total)

        def measure(missing: list[Cell]) -> None:
            for cell, found in _measured(missing):
                with lock:
                    kept = [row for row in read(results)["rows"] if _key(row) != tuple(cell)]
                    _write(results, "rows", sorted([*kept, *found], key=_order))
                bars.advance(bar)

        for finished in [pool.submit(measure, missing) for missing in work.values()]:
            finished.result()


def _key(row: Found) -> tuple[Any, ...]:
    return row["model"], row["method"], row["setting"], row["epochs"], row["share"]


def _order(row: Found) -> tuple[Any, ...]:
    return row["epochs"], row["model"], row["method"], row["setting"], row["counted"], -row["share"]


def read(results: Path) -> Found:
    """What was measured so far."""
    found: Found = json.loads(results.read_text()) if results.exists() else {"rows": []}
    return found


def _write(results: Path, name: str, value: Any) -> None:
    files.write_text(results, json.dumps({**read(results), name: value}, indent=1) + "\n")


def _measured(cells: list[Cell]) -> Iterator[tuple[Cell, list[Found]]]:
    """Cells of one model, one after the other; after a crash, the next ones in a new process."""
    from tests.benchmarks.prune.suite import refusal

    while cells:
        command = [sys.executable, "-m", "tests.benchmarks.prune", "some", json.dumps(cells)]
        with TemporaryFile("w+") as said, subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as process:  # fmt: skip
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("[{"):
                    yield cells[0], json.loads(line)
                    cells = cells[1:]
            process.wait()
            said.seek(0)
            lines = [line for line in said.read().splitlines() if line.strip()]
        if cells:
            first, cells = cells[0], cells[1:]
            why = lines[-1][:200] if lines else f"exit code {process.returncode}"
            yield first, [refusal(*first[:3], first.share, first.epochs, why).to_json()]


@app.command()
def some(cells: str) -> None:
    """Measure cells of one model; print the rows of each as a line of JSON."""
    import torch

    from tests.benchmarks.prune import suite

    torch.set_num_threads(1)
    asked = [Cell(*cell) for cell in json.loads(cells)]
    task = suite.Task.load(asked[0].model)
    for cell in asked:
        found = suite.rows(task, cell.method, cell.setting, cell.epochs, cell.share)
        print(json.dumps([row.to_json() for row in found]), flush=True)


@app.command()
def speed(
    results: Path = RESULTS,
    model: Annotated[str, typer.Option()] = "caformer",
    share: Annotated[float, typer.Option(help="Of multiply-accumulates.")] = 0.5,
) -> None:
    """Times of the whole and the pruned model in ONNX Runtime and LiteRT."""
    from tests.benchmarks.prune import costs

    _write(results, "speed", [asdict(row) for row in costs.speed(model, share)])


@app.command()
def int8(
    results: Path = RESULTS,
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    share: Annotated[float, typer.Option(help="Of multiply-accumulates.")] = 0.5,
) -> None:
    """What 8 bits cost on the whole model and on the pruned one."""
    from tests.benchmarks.prune import costs
    from tests.benchmarks.prune.suite import MODELS

    found = {row["model"]: row for row in read(results).get("int8", [])}
    for model in models.split(",") if models else MODELS:
        found[model] = asdict(costs.int8(model, share))
        _write(results, "int8", list(found.values()))


@app.command()
def table(
    results: Path = RESULTS,
    short: Annotated[
        bool, typer.Option("--short", help="edgemix beside the best of each peer alone.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(help="Also write the curves: an .svg.")] = None,
) -> None:
    """Print what was measured, as Markdown."""
    from tests.benchmarks.prune import tables

    found = read(results)
    print(tables.short(found) if short else "\n\n".join(tables.markdown(found)))
    if picture is not None:
        files.write_text(picture, tables.svg(found["rows"]))


if __name__ == "__main__":
    app()
