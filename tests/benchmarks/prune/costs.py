"""What pruning buys in runtimes, and what 8 bits cost on top of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from edgemix.batched import batched
from edgemix.latency.board import runtimes
from edgemix.program import Program
from edgemix.quantize.levels import QUALITY
from edgemix.quantize.quality import improve
from edgemix.quantize.recipe import Recipe
from tests.benchmarks.prune import suite

_TURNS, _WARM = 300, 10
_PEER = ("torch-pruning", "magnitude, isomorphic")


@dataclass(frozen=True)
class Time:
    """One file in one runtime."""

    model: str
    share: float
    runtime: str
    method: str
    what: str
    least_ms: float
    """The least of all turns, one thread: on a busy machine, what the file itself takes."""
    turns: int = _TURNS


@dataclass(frozen=True)
class Integer:
    """One model's points in float and in 8 bits, whole and pruned."""

    model: str
    share: float
    whole: float
    whole_int8: float
    pruned: float
    pruned_int8: float


def speed(model: str, share: float) -> list[Time]:
    """The whole and the pruned model, by edgemix and by a peer, all files in turns."""
    task = suite.Task.load(model)
    folder = Path(tempfile.mkdtemp())
    small, _ = suite.ours(task, share, "refit")
    fewer, _ = suite.ours(task, share, "three branches first")
    peer, _ = suite.peer(task, share, *_PEER)
    assert peer is not None
    files = {
        **_deployed(task.program, folder / "whole", "edgemix", "whole"),
        **_deployed(small, folder / "small", "edgemix", "pruned"),
        **_deployed(fewer, folder / "fewer", "edgemix, three branches", "pruned"),
        **_exported(task.base.module, task, folder / "module", "torch export", "whole"),
        **_exported(peer.bare(), task, folder / "peer", "torch-pruning", "pruned"),
    }
    calls = {key: next(runtimes.cases(str(path), threads=1)).call for key, path in files.items()}
    least = _least(calls)
    return [Time(model, share, *key, round(ms, 4)) for key, ms in least.items()]


Key = tuple[str, str, str]
"""Runtime, method, and what of the model."""


def _least(calls: dict[Key, Callable[[], object]]) -> dict[Key, float]:
    times: dict[Key, list[float]] = {key: [] for key in calls}
    for turn in range(_TURNS + _WARM):
        for key, call in calls.items():
            start = time.perf_counter_ns()
            call()
            if turn >= _WARM:
                times[key].append((time.perf_counter_ns() - start) / 1e6)
    return {key: min(own) for key, own in times.items()}


def _deployed(program: Program, place: Path, method: str, what: str) -> dict[Key, Path]:
    place.mkdir()
    program.save(place / "program.edgemix")
    np.savez(place / "x.npz", x=np.zeros((1, *program.inputs[0].shape[1:]), np.float32))
    order = (
        "deploy", str(place / "program.edgemix"), "--out", str(place / "out"), "--recipe",
        "float32", "--calibrate", str(place / "x.npz"), "--evaluate-samples", "1",
        "--to", "onnx,tflite", "--quiet",
    )  # fmt: skip
    subprocess.run([sys.executable, "-m", "edgemix", *order], check=False)
    return {
        ("ONNX Runtime", method, what): place / "out" / "onnx" / "model.onnx",
        ("LiteRT", method, what): place / "out" / "tflite" / "model.tflite",
    }


def _exported(
    module: nn.Module, task: suite.Task, place: Path, method: str, what: str
) -> dict[Key, Path]:
    import litert_torch

    place.mkdir()
    example = task.base.example
    torch.onnx.export(
        module, example, str(place / "model.onnx"), dynamo=True, external_data=False, verbose=False
    )
    litert_torch.convert(module.eval(), example).export(str(place / "model.tflite"))
    return {
        ("ONNX Runtime", method, what): place / "model.onnx",
        ("LiteRT", method, what): place / "model.tflite",
    }


def int8(model: str, share: float) -> Integer:
    """Balanced int8, calibrated on the same samples, of both."""
    task = suite.Task.load(model)
    small, row = suite.ours(task, share, "refit")
    recipe = Recipe.load("int8").model_copy(update={"algorithms": QUALITY["balanced"]})

    def coded(program: Program) -> float:
        made = improve(program, task.base.calibration, recipe).program
        run = batched(made)[1]
        return task.points(lambda x: run(x)[0])

    return Integer(model, share, row.float_points, coded(task.program), row.points, coded(small))
