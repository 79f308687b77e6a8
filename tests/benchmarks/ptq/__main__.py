"""The reference suite: ``python -m tests.benchmarks.ptq run|table|ablation|speed``.

``run`` fills a results file, cell by cell, each in a process of its own: a peer that crashes is a
line that says so, and a run that is cut off goes on where it was. ``table`` prints it. ``ablation``
shows what every algorithm adds, ``speed`` what it costs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import track
from rich.table import Table

from edgemix import files

RESULTS = Path(__file__).with_name("results.json")
ABLATION = Path(__file__).with_name("ablation.json")
OURS = ("fast", "balanced", "best")
_LIMIT_S = 3600

app = typer.Typer(add_completion=False, help=__doc__)
out = Console()


@app.command()
def run(
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    recipes: Annotated[str, typer.Option(help="Comma-separated.")] = "int8,w6a6,w4a8,w4a4",
    methods: Annotated[str, typer.Option(help="fast, balanced, best or peers; default: all.")] = "",
    results: Path = RESULTS,
    jobs: Annotated[int, typer.Option(help="Cells at once, each of as many threads.")] = 1,
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
    # What a peer refuses it refuses again; what failed here may have been mended since.
    done = {_cell(row) for row in rows if not (row["refused"] and row["method"] in OURS)}
    missing = [cell for cell in cells if again or cell not in done]
    threads = max(torch.get_num_threads() // jobs, 1)  # of the cores that this process may use
    with ThreadPoolExecutor(jobs) as pool:
        measured = pool.map(lambda cell: _measured(*cell, threads), missing)
        for cell, found in zip(missing, track(measured, "measuring", len(missing), console=Console(stderr=True))):  # fmt: skip
            rows = [row for row in rows if _cell(row) != cell] + found
            files.write_text(results, json.dumps(rows, indent=1) + "\n")


def _cell(row: dict[str, Any]) -> tuple[str, str, str]:
    method = row["setting"] if row["method"] == "edgemix" else row["method"]
    return row["model"], row["recipe"], method


def read(results: Path) -> list[dict[str, Any]]:
    """The rows that were measured so far."""
    return json.loads(results.read_text()) if results.exists() else []


def _measured(model: str, recipe: str, method: str, threads: int) -> list[dict[str, Any]]:
    from tests.benchmarks.ptq.suite import refusal

    command = [sys.executable, "-m", "tests.benchmarks.ptq", "one", model, recipe, method]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )  # fmt: skip
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
    from tests.benchmarks.ptq.models import REFERENCES

    for recipe in recipes.split(","):
        rows = [r for r in read(results) if r["recipe"] == recipe]
        measured = {r["model"] for r in rows}
        models = [model for model in REFERENCES if model in measured]
        lines = [_line(model, [r for r in rows if r["model"] == model]) for model in models]
        names = ("model", "float", *OURS, "best peer, every operator", "best peer, fewer operators")
        _print(recipe, (f"{recipe}: model", *names[1:]), lines, markdown=markdown)


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


@app.command()
def imagenet(
    model: Annotated[str, typer.Argument(help="timm:NAME?pretrained=True")],
    calibrate: Annotated[Path, typer.Option(help="Folder of images, a subfolder a class.")],
    evaluate: Annotated[Path, typer.Option(help="Another one: ImageNet's validation images.")],
    recipe: Annotated[str, typer.Option()] = "int8",
    quality: Annotated[str, typer.Option(help="fast, balanced or best.")] = "balanced",
    samples: Annotated[int, typer.Option(help="Calibration images.")] = 512,
    limit: Annotated[int | None, typer.Option(help="Evaluation images; default: all.")] = None,
) -> None:
    """Top-1 accuracy of a timm model on ImageNet, float and quantized, beside published ones.

    Images are prepared as timm does for that model; labels are the subfolders in order.
    """
    from tests.benchmarks.ptq import imagenet as real

    found = real.evaluate(model, calibrate, evaluate, recipe, quality, samples, limit)  # type: ignore[arg-type]
    lines = [["edgemix, here", recipe, f"{found.real:.2f}", f"{found.quantized:.2f}"]]
    lines += [[p["method"], p["bits"], f"{p['fp']:g}", f"{p['value']:g}"] for p in real.published(model)]  # fmt: skip
    _print(f"{model}, {found.images:,} images", ("method", "bits", "float", "top-1"), lines, markdown=False)  # fmt: skip


@app.command()
def ablation(
    models: Annotated[str, typer.Option(help="Comma-separated; default: all.")] = "",
    recipes: Annotated[str, typer.Option(help="Comma-separated.")] = "int8,w4a8",
    learned: Annotated[bool, typer.Option("--learned", help="Reconstruction, too: long.")] = False,
    results: Path = ABLATION,
    show: Annotated[
        bool, typer.Option("--show", help="Print what is there, measure nothing.")
    ] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="For the README.")] = False,
) -> None:
    """What every algorithm adds on held-out samples: SQNR and accuracy."""
    from tests.benchmarks.ptq.models import REFERENCES

    rows = read(results)
    there = {(r["model"], r["recipe"]) for r in rows}
    for recipe in recipes.split(","):
        for model in models.split(",") if models else REFERENCES:
            if show or (model, recipe) in there:
                continue
            command = ["ablate", model, recipe, *(["--learned"] if learned else [])]
            rows += _answer(command)
            files.write_text(results, json.dumps(rows, indent=1) + "\n")
    for recipe in recipes.split(","):
        _print_ablation([r for r in rows if r["recipe"] == recipe], recipe, markdown=markdown)


def _print_ablation(rows: list[dict[str, Any]], recipe: str, *, markdown: bool) -> None:
    models = list(dict.fromkeys(r["model"] for r in rows))
    cells = {
        (r["algorithm"], r["model"]): f"{r['sqnr_db']:.1f} dB, {r['points']:.2f}" for r in rows
    }
    lines = [
        [name, *(cells.get((name, model), "–") for model in models)]
        for name in dict.fromkeys(r["algorithm"] for r in rows)
    ]
    _print(recipe, (f"{recipe}: after", *models), lines, markdown=markdown)


@app.command()
def ablate(model: str, recipe: str, learned: bool = False) -> None:
    """One model's ablation as JSON."""
    from tests.benchmarks.ptq import ablation as steps
    from tests.benchmarks.ptq.suite import Task

    found = steps.ablation(Task.load(model), recipe, learned=learned)
    print(json.dumps([asdict(step) for step in found]))


@app.command()
def speed(
    markdown: Annotated[bool, typer.Option("--markdown", help="For the README.")] = False,
) -> None:
    """Seconds and memory of every quality on the CAFormer; calibration against bare models."""
    from tests.benchmarks.ptq.models import REFERENCES

    runs = [
        _answer(["cost", quality, str(n)])
        for quality, n in (("fast", 100), ("balanced", 256), ("best", 256))
    ]
    lines = [
        [r["quality"], str(r["calibration"]), f"{r['seconds']:.1f} s", f"{r['peak_mb']:.0f} MB",
         f"{3 * r['model_mb'] + r['batch_mb']:.0f} MB"]
        for r in runs
    ]  # fmt: skip
    names = ("caformer, int8", "samples", "time", "peak memory", "3 × weights + a batch of 64")
    _print("cost", names, lines, markdown=markdown)
    found = [_answer(["throughput", model]) for model in REFERENCES]
    lines = [
        [r["model"], f"{r['bare']:,.0f}", f"{r['calibrating']:,.0f}",
         f"{r['calibrating'] / r['bare']:.2f}"]
        for r in found
    ]  # fmt: skip
    names = ("samples per second", "bare model", "calibrating", "share")
    _print("throughput", names, lines, markdown=markdown)


@app.command()
def cost(quality: str, calibration: int, model: str = "caformer", recipe: str = "int8") -> None:
    """One quantization's cost as JSON."""
    from tests.benchmarks.ptq import costs

    print(json.dumps(asdict(costs.run(model, recipe, quality, calibration))))  # type: ignore[arg-type]


@app.command()
def throughput(model: str) -> None:
    """One model's throughput as JSON."""
    from tests.benchmarks.ptq import costs

    print(json.dumps(asdict(costs.throughput(model))))


def _answer(command: list[str]) -> Any:
    """What a command of this module prints, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.ptq", *command], stdout=subprocess.PIPE, text=True,
        check=True,
    )  # fmt: skip
    return json.loads(done.stdout.strip().splitlines()[-1])


def _print(title: str, names: tuple[str, ...], lines: list[list[str]], *, markdown: bool) -> None:
    if markdown:
        print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
        for line in lines:
            print("| " + " | ".join(line) + " |")
        print()
        return
    shown = Table(*names, title=title, box=None)
    for line in lines:
        shown.add_row(*line)
    out.print(shown)


if __name__ == "__main__":
    app()
