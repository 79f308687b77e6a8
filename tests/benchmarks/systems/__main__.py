"""Systems × recipes × targets: ``python -m tests.benchmarks.systems run|table``.

``run`` fills a results file, a process for each system: one that is cut off goes on where it was.
``table`` prints it.
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
RECIPES, TARGETS = "float32,float16,int8-exact", "coreml,coreai"
# Sequencer2D's sixteen thousand operators need most of it; nearly all others ten minutes.
_LIMIT_S = 5400

app = typer.Typer(add_completion=False, help=__doc__)
out = Console()


@app.command()
def run(
    systems: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    recipes: Annotated[str, typer.Option(help="Comma-separated.")] = RECIPES,
    to: Annotated[str, typer.Option(help="Targets, comma-separated.")] = TARGETS,
    results: Path = RESULTS,
    again: Annotated[bool, typer.Option("--again", help="Also what is there already.")] = False,
) -> None:
    """Measure every system that the results file lacks, all recipes and targets of it."""
    from tests.benchmarks.systems.cases import names

    rows = read(results)
    done = set() if again else {row["system"] for row in rows}
    chosen = systems.split(",") if systems else list(names())
    missing = [name for name in chosen if name not in done]
    for name in track(missing, "measuring", console=Console(stderr=True)):
        found = _measured(name, recipes, to)
        rows = [row for row in rows if row["system"] != name] + found
        files.write_text(results, json.dumps(rows, indent=1) + "\n")


def read(results: Path) -> list[dict[str, Any]]:
    """The rows that were measured so far."""
    return json.loads(results.read_text()) if results.exists() else []


def _measured(name: str, recipes: str, to: str) -> list[dict[str, Any]]:
    from tests.benchmarks.systems.cell import PROGRAM, Row

    command = [sys.executable, "-m", "tests.benchmarks.systems", "one", name, recipes, to]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=True)
    except subprocess.TimeoutExpired:
        return [Row(name, recipes, PROGRAM, refused=f"not done after {_LIMIT_S} s").to_json()]
    except subprocess.CalledProcessError as error:
        last = (error.stderr.strip().splitlines() or [f"exit {error.returncode}"])[-1]
        return [Row(name, recipes, PROGRAM, refused=last[:400]).to_json()]
    return json.loads(done.stdout.strip().splitlines()[-1])  # type: ignore[no-any-return]


@app.command(hidden=True)
def one(name: str, recipes: str, to: str) -> None:
    """One system, as JSON."""
    from tests.benchmarks.systems.cell import measured

    rows = [row.to_json() for row in measured(name, recipes.split(","), to.split(","))]
    print(json.dumps(rows))


@app.command()
def table(
    results: Path = RESULTS,
    markdown: Annotated[bool, typer.Option("--markdown", help="For the README.")] = False,
) -> None:
    """Print what was measured, then what was refused, and why."""
    from tests.benchmarks.systems.table import columns, lines, refusals, summary

    rows = read(results)
    if markdown:
        for line in [columns(rows), ["---"] * len(columns(rows)), *lines(rows)]:
            print(f"| {' | '.join(line)} |")
        print()
    else:
        shown = Table(box=None)
        for name in columns(rows):
            shown.add_column(name, justify="left" if name == "system" else "right")
        for line in lines(rows):
            shown.add_row(*line)
        out.print(shown)
    for text in (*summary(rows), *refusals(rows)):
        print(text)


if __name__ == "__main__":
    app()
