"""What quantization costs: seconds, memory, and calibration against the bare model."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.levels import Quality
from tests.benchmarks.ptq.suite import Task, ours

_LONG_ENOUGH_S = 1.0
_BATCH = 64


@dataclass(frozen=True)
class Throughput:
    """Samples per second of a model, alone and while its ranges are watched."""

    model: str
    bare: float
    calibrating: float

    @property
    def share(self) -> float:
        """Of the bare model's."""
        return self.calibrating / self.bare


def throughput(name: str) -> Throughput:
    """Both on the same samples in the same batches, so many that the bare model takes a second.

    Each the best of three runs. Calibrating includes what it does once: preparing the graph.
    """
    task = Task.load(name)
    program = rewrites.standard(Program.trace(task.module, task.example, Origin(name)))
    batches = list(task.calibration.split(_BATCH))

    def bare() -> None:
        with torch.no_grad():
            for batch in batches:
                task.module(batch)

    while _seconds(bare) < _LONG_ENOUGH_S:
        batches = batches * 2
    samples = sum(len(batch) for batch in batches)
    alone = min(_seconds(bare) for _ in range(3))
    watched = min(_seconds(lambda: calibrate(program, batches)) for _ in range(3))
    return Throughput(name, samples / alone, samples / watched)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Run:
    """One quantization in a process of its own."""

    model: str
    recipe: str
    quality: str
    calibration: int
    seconds: float
    peak_mb: float
    """Resident memory above that of the loaded model and data."""
    model_mb: float
    """The float weights."""
    batch_mb: float
    """All activations of one batch of 64 samples in the float model."""


def run(name: str, recipe: str, quality: Quality, calibration: int) -> Run:
    """Quantize once; call it in a fresh process, since memory is measured at its peak."""
    task = Task.load(name, calibration)
    # One forward pass and one trace first: libraries take their own memory once.
    program = Program.trace(task.module, task.example, Origin(name))
    with torch.no_grad():
        task.module(task.calibration[:1])
    before = _peak_mb()
    row = ours(task, recipe, quality)
    weights = sum(p.numel() for p in task.module.parameters()) * 4 / 1e6
    values = sum(
        n.meta["val"].numel() for n in program.module().graph.nodes
        if n.op == "call_function" and isinstance(n.meta.get("val"), torch.Tensor)
    )  # fmt: skip
    return Run(
        name, recipe, quality, calibration, row.seconds, _peak_mb() - before, weights,
        values * _BATCH * 4 / 1e6,
    )  # fmt: skip


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
