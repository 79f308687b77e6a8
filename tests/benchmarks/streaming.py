"""Streaming benchmarks: ``python tests/benchmarks/streaming.py matrix|keywords [--json FILE]``.

Every figure is made in the run that prints it. Errors are those of artifacts against the quantized
program; times of ONNX Runtime and LiteRT are measured on this machine, those of RTL simulated.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console
from rich.table import Table

from edgemix import data, diagnosis, endurance, proof, rewrites, targets
from edgemix.data.speech import FRAMES
from edgemix.models import keywords, tiny
from edgemix.models.spiking.neurons import spike_counts
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.streaming.trace import step_program
from edgemix.targets.fpga.hardware import Hardware

STEPS = 1000
TARGETS = ("onnx", "tflite", "hls4ml", "rtl")
SHARES = (0.4, 0.5, 0.6, 0.68, 0.8, 0.9, 1.0)
"""Of an utterance that was heard; LMUFormer's authors stop at 0.68."""

app = typer.Typer(add_completion=False)
out = Console()


@app.command()
def matrix(
    names: Annotated[list[str] | None, typer.Argument()] = None,
    to: str = ",".join(TARGETS),
    recipe: str = "fixed8",
    save: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Model × target: the largest error of any state at step 1,000, and what quantizing cost."""
    rows = []
    for factory in tiny.FACTORIES:
        if not names or factory.__name__ in names:
            rows.append(_row(factory, to.split(","), recipe))
            print(rows[-1], file=sys.stderr)
    table = Table(box=None, title=f"recipe {recipe}, {STEPS:,} steps, states of a random stream")
    for name in ("model", "output, dB", "states, % at step 1,000", "bounded", *to.split(",")):
        table.add_column(name, justify="left" if name == "model" else "right")
    for row in rows:
        found = [f"{row[t]} LSB" for t in to.split(",")]
        worst = f"{100 * row['state_error']:.2f}"
        table.add_row(row["model"], f"{row['db']:.1f}", worst, str(row["bounded"]), *found)
    _end(table, rows, save)


def _row(factory: tiny.Factory, names: list[str], recipe_name: str) -> dict[str, Any]:
    recipe = Recipe.load(recipe_name)
    module, example = factory()
    program = step_program(module, example, Origin(factory.__name__))
    program = rewrites.standard(program, recipe.split)
    quantized = quantize(program, calibrate(program, [_random(program, 2, 1)]), recipe)
    x = _random(program, 1, 2)
    real, expected = program.rollout(x), quantized.rollout(x)
    growth = endurance.growth(quantized, real, expected)
    row: dict[str, Any] = {
        "model": factory.__name__,
        "db": proof.sqnr_db(real.outputs[0].numpy(), expected.outputs[0].numpy()),
        "state_error": max(g.error[-1] for g in growth),
        "bounded": all(g.bounded for g in growth),
    }
    for name in names:
        with tempfile.TemporaryDirectory() as scratch:
            _, found = _made(name, quantized, Path(scratch), x)
        states = found[len(expected.outputs) :]
        row[name] = endurance.last_step_lsb(expected.states, states, quantized.state_encodings)
    return row


@app.command("keywords")
def spotters(
    samples: int = 2400,
    to: str = ",".join(TARGETS),
    save: Annotated[Path | None, typer.Option("--json")] = None,
) -> None:
    """Accuracy, spikes, synaptic operations and step latency of the two keyword spotters."""
    held_out = data.load("keywords:heldout", keywords_spec(), steps=True).head(samples)
    training = data.load("keywords:train", keywords_spec(), steps=True)
    rows = [_spotter(name, held_out, training, to.split(",")) for name in keywords.MODELS]
    table = Table(box=None, title=f"{samples:,} utterances of {FRAMES} steps, recipe fixed8")
    table.add_column("")
    for row in rows:
        table.add_column(row["model"], justify="right")
    for key in max(rows, key=len):
        if key not in ("model", "heard"):
            table.add_row(key, *(_shown(row.get(key, "–")) for row in rows))
    for share in SHARES:
        found = (f"{100 * row['heard'][str(share)]:.2f} %" for row in rows)
        table.add_row(f"accuracy, {share:.0%} heard", *found)
    _end(table, rows, save)


def keywords_spec() -> Any:
    """What a step of a keyword spotter takes."""
    _, example = keywords.spiking()
    return Program.trace(torch.nn.Identity(), (example[:, 0],), Origin("")).inputs[0]


def _spotter(
    name: str, held_out: data.Data, training: data.Data, names: list[str]
) -> dict[str, Any]:
    assert held_out.labels is not None
    recipe = Recipe.load("fixed8")
    module, example = getattr(keywords, name)()
    program = step_program(module, example, Origin(name))
    program = rewrites.standard(program, recipe.split)
    streams = endurance.stream(training.samples[:300], STEPS, most=300)
    quantized = quantize(program, calibrate(program, [streams]), recipe)
    x = held_out.tensor()
    with torch.no_grad():
        whole = torch.cat([module(piece) for piece in x.split(200)])
    real, found = program.run(x)[0], quantized.run(x)[0]
    macs = diagnosis.multiply_accumulates(program)
    row: dict[str, Any] = {
        "model": name,
        "parameters": program.parameters,
        "accuracy, whole sequence": proof.accuracy(whole, held_out.labels),
        "accuracy, steps": proof.accuracy(real, held_out.labels),
        "accuracy, steps in fixed8": proof.accuracy(found, held_out.labels),
        "multiply-accumulates a step": macs,
    }
    counts = spike_counts(module, x[:500])
    if counts:
        spikes, places = (sum(c[i] for c in counts.values()) for i in (0, 1))
        row["spikes an utterance"] = spikes / 500
        row["neurons that fire in a step"] = spikes / places
    row["synaptic operations a step"] = diagnosis.synaptic_operations(program, x[:100])
    row["heard"] = {
        str(share): _accuracy_at(found, held_out.labels, round(share * FRAMES)) for share in SHARES
    }
    for target in names:
        with tempfile.TemporaryDirectory() as scratch:
            latency, answers = _made(target, quantized, Path(scratch), x[:40])
        row[f"identical outputs, {target}"] = float(np.mean(found[:40].numpy() == answers[0]))
        row[f"step, {target}"] = latency
    return row


def _accuracy_at(outputs: torch.Tensor, labels: Any, steps: int) -> float:
    return proof.accuracy(outputs[:, :steps], labels)


def _made(name: str, program: Program, folder: Path, x: torch.Tensor) -> tuple[str, Any]:
    hardware = Hardware(part="xcvu13p-flga2577-2-e", clock_ns=10.0)
    target = targets.load(name, hardware)
    program.save(folder / "program.edgemix")
    (folder / name).mkdir()
    artifact = target.lower(program, folder / "program.edgemix", folder / name)
    found = target.run(artifact, folder / name, (x.numpy(),))
    latency = target.latency(artifact, folder / name, 1)
    said = "from synthesis only" if latency is None else f"{_time(latency.p50_ms)} {latency.kind}"
    return said, found


def _time(ms: float) -> str:
    return f"{ms * 1e6:.0f} ns" if ms < 1e-3 else f"{ms * 1e3:.1f} µs"


def _random(program: Program, count: int, seed: int) -> torch.Tensor:
    shape = (count, STEPS, *program.inputs[0].shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _end(table: Table, rows: list[dict[str, Any]], save: Path | None) -> None:
    out.print(table)
    if save is not None:
        save.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    app()
