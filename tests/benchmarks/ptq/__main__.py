"""The reference suite: ``python -m tests.benchmarks.ptq run|table|ablation|speed``.

``run`` fills a results file, cell by cell, each in a process of its own: a peer that crashes is a
line that says so, and a run that is cut off goes on where it was. ``table`` prints it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgemix import files

RESULTS = Path(__file__).with_name("results.json")
OURS = ("fast", "balanced", "best")
_LIMIT_S = 1800

app = typer.Typer(add_completion=False, help=__doc__)
out = Console()


@app.command()
def run(
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    recipes: Annotated[str, typer.Option(help="Comma-separated.")] = "int8,w6a6,w4a8,w4a4",
    methods: Annotated[str, typer.Option(help="fast, balanced, best or peers; default: all.")] = "",
    results: Path = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Also what is there already.")] = False,
) -> None:
    """Measure every model × recipe × method that the results file lacks."""
    from tests.benchmarks.ptq.models import REFERENCES
    from tests.benchmarks.ptq.suite import PEERS

    rows = read(results)
    cells = [
        (model, recipe, method)
        for model in (models.split(",") if models else REFERENCES)
        for recipe in recipes.split(",")
        for method in (methods.split(",") if methods else (*OURS, *PEERS))
    ]
    done = {_cell(row) for row in rows}
    missing = [cell for cell in cells if again or cell not in done]
    for cell in track(missing, "measuring", console=Console(stderr=True)):
        rows = [row for row in rows if _cell(row) != cell] + _measured(*cell)
        files.write_text(results, json.dumps(rows, indent=1) + "\n")


def _cell(row: dict[str, Any]) -> tuple[str, str, str]:
    method = row["setting"] if row["method"] == "edgemix" else row["method"]
    return row["model"], row["recipe"], method


def read(results: Path) -> list[dict[str, Any]]:
    """The rows that were measured so far."""
    return json.loads(results.read_text()) if results.exists() else []


def _measured(model: str, recipe: str, method: str) -> list[dict[str, Any]]:
    from tests.benchmarks.ptq.suite import refusal

    command = [sys.executable, "-m", "tests.benchmarks.ptq", "one", model, recipe, method]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
        last = done.stdout.strip().splitlines()[-1:] or [""]
        if done.returncode == 0 and last[0].startswith("["):
            found: list[dict[str, Any]] = json.loads(last[0])
            return found
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        why = lines[-1][:200] if lines else f"exit code {done.returncode}"
    except subprocess.TimeoutExpired:
        why = f"more than {_LIMIT_S // 60} minutes"
    return [refusal(model, recipe, method, why).to_json()]


@app.command()
def one(model: str, recipe: str, method: str) -> None:
    """Measure one cell and print its rows as JSON."""
    from tests.benchmarks.ptq import suite

    task = suite.Task.load(model)
    if method in OURS:
        rows = [suite.ours(task, recipe, method)]  # type: ignore[arg-type]
    else:
        rows = list(suite.peer(task, recipe, method))
    print(json.dumps([row.to_json() for row in rows]))


@app.command()
def table(
    recipes: Annotated[str, typer.Option(help="Comma-separated.")] = "int8,w6a6,w4a8,w4a4",
    results: Path = RESULTS,
    markdown: Annotated[bool, typer.Option("--markdown", help="For the README.")] = False,
) -> None:
    """Print the results: edgemix, the best peer for the same operators, and the best of all."""
    rows = read(results)
    for recipe in recipes.split(","):
        lines = [_line(model, [r for r in rows if r["recipe"] == recipe and r["model"] == model])
                 for model in dict.fromkeys(r["model"] for r in rows)]  # fmt: skip
        names = ("model", "float", *OURS, "best peer, every operator", "best peer, fewer operators")
        if markdown:
            out.print(f"**{recipe}**\n", highlight=False)
            print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
            for line in lines:
                print("| " + " | ".join(line) + " |")
            print()
            continue
        shown = Table(*names, title=recipe, box=None)
        for line in lines:
            shown.add_row(*line)
        out.print(shown)


def _line(model: str, rows: list[dict[str, Any]]) -> list[str]:
    measured = [r for r in rows if not r["refused"]]
    mine = {r["setting"]: r for r in measured if r["method"] == "edgemix"}
    peers = [r for r in measured if r["method"] != "edgemix"]
    first = f"{measured[0]['float_points']:.2f}" if measured else "–"
    return [
        model, first, *(_shown(mine.get(name)) for name in OURS),
        _shown(_best([r for r in peers if r["every_operator"]]), named=True),
        _shown(_best([r for r in peers if not r["every_operator"]]), named=True),
    ]  # fmt: skip


def _best(rows: list[dict[str, Any]]) -> dict[str, Any] | None:
    return max(rows, key=lambda r: r["sqnr_db"] or -300.0) if rows else None


def _shown(row: dict[str, Any] | None, *, named: bool = False) -> str:
    if row is None:
        return "–"
    who = f", {row['method']}" if named else ""
    return f"{row['points']:.2f}, {row['sqnr_db']:.1f} dB{who}"


if __name__ == "__main__":
    app()
