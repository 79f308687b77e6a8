"""One model by one method: what everyone is given, and what is measured."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemix import data as sets
from edgemix import rewrites
from edgemix.batched import batched
from edgemix.diagnosis import multiply_accumulates
from edgemix.program import Origin, Program
from edgemix.quantize.prune.blocks import drop_branches
from edgemix.quantize.prune.finetune import finetune
from edgemix.quantize.prune.prune import Pruner
from edgemix.quantize.prune.recipe import Pruning
from edgemix.quantize.prune.size import Counted
from tests.benchmarks.prune.peers import Made, Peer, Refused
from tests.benchmarks.ptq import data
from tests.benchmarks.ptq import suite as ptq

MODELS = ("caformer", "poolformer", "hybrid", "tsmixer", "jets")
SHARES = (0.7, 0.5, 0.3, 0.2)
CALIBRATION = ptq.CALIBRATION
_DATA = {"tsmixer": "series", "jets": "jets"}
_AT_ONCE = 50

OURS: dict[str, Pruning] = {
    "refit": Pruning(),
    "hessian": Pruning(importance="hessian"),
    "cut alone": Pruning(refit=False),
    "three branches first": Pruning(branches=3),
}
WHAT = {
    "refit": "widths by refit, the rest fitted again",
    "hessian": "widths by hessian, the rest fitted again",
    "cut alone": "widths by refit, the rest as it was",
    "three branches first": "three residual branches, then widths by refit; the rest fitted again",
}
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "torch-pruning": (
        "torch_pruning_groups",
        tuple(
            f"{what}, {where}"
            for where in ("isomorphic", "uniform")
            for what in ("magnitude", "taylor", "hessian")
        ),
    ),
    "nncf": ("nncf_masks", ("widths", "local", "global")),
}
"""The file of each peer, and the settings that it is tried in."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model: str
    method: str
    setting: str
    counted: Counted
    """Of what a share is left: of multiply-accumulates or, where no width changes, of weights."""
    share: float
    """What was asked for."""
    epochs: int
    what: str
    labels: bool
    """Whether it saw labels before training; training sees them always."""
    float_points: float
    points: float
    """Accuracy in percent; for forecasts, the share of variance that is explained."""
    macs: float
    """Share that is left, by edgemix's own count of the graph."""
    weights: float
    """Share that is left; weights that are zero do not count."""
    seconds: float
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @property
    def drop(self) -> float:
        """Points that were lost."""
        return self.float_points - self.points


@dataclass(frozen=True, eq=False)
class Task:
    """A reference model with its data, its labels, and its program."""

    base: ptq.Task
    labels: Tensor
    """Of the calibration samples: classes, or what follows."""

    @classmethod
    def load(cls, name: str) -> Task:
        """The PTQ suite's task, with the labels of its calibration samples."""
        base = ptq.Task.load(name, CALIBRATION)
        samples, labels = _training(name)
        order = np.random.default_rng(0).permutation(len(samples))[:CALIBRATION]
        assert torch.equal(samples[order], base.calibration)
        return cls(base, labels[order])

    @property
    def name(self) -> str:
        return self.base.name

    @cached_property
    def program(self) -> Program:
        """Of the whole model, after the standard rewrites."""
        return traced(self.base.module, self.base.example, self.name)

    @cached_property
    def training(self) -> tuple[Tensor, Tensor]:
        """All samples to learn from, and their labels."""
        return _training(self.name)

    @cache
    def pruner(self, setting: str) -> tuple[Pruner, float]:
        """What edgemix knows of the model's units, and the seconds it took."""
        start = time.perf_counter()
        pruning, program = OURS[setting], self.program
        if pruning.branches:
            program, _ = drop_branches(program, self.base.calibration, pruning.branches)
        return Pruner.of(program, pruning, self.base.calibration), time.perf_counter() - start

    def run(self, model: Callable[[Tensor], Tensor], samples: Tensor) -> Tensor:
        """Outputs, some samples at a time."""
        with torch.no_grad():
            return torch.cat([model(x) for x in torch.split(samples, _AT_ONCE)])

    def points(self, model: Callable[[Tensor], Tensor]) -> float:
        """What a model is worth on samples held out."""
        return self.base.points(self.run(model, self.base.samples))

    @cached_property
    def float_points(self) -> float:
        """What the whole model is worth."""
        return self.base.points(self.base.outputs)


def traced(module: nn.Module, example: tuple[Tensor, ...], name: str) -> Program:
    """A module's program, after the standard rewrites."""
    return rewrites.standard(Program.trace(module, example, Origin(name)))


def _training(name: str) -> tuple[Tensor, Tensor]:
    source = _DATA.get(name, "digits32")
    found = getattr(data, source)("train") if hasattr(data, source) else sets.SETS[source]("train")
    labels = data.futures("train") if source == "series" else found.labels
    return torch.from_numpy(np.array(found.samples)), torch.from_numpy(np.array(labels))


def ours(
    task: Task, share: float, setting: str, counted: Counted = "macs", epochs: int = 0
) -> tuple[Program, Row]:
    """edgemix: pruned to a share of what is counted, from calibration samples without labels."""
    whole = task.program
    pruner, before = task.pruner(setting)
    start = time.perf_counter() - before
    total = multiply_accumulates(whole) if counted == "macs" else whole.parameters
    _, made = pruner.within(counted, share * total)
    if epochs:
        made = finetune(whole, made, *task.training, epochs)
    seconds = time.perf_counter() - start
    run = batched(made)[1]
    return made, Row(
        task.name, "edgemix", setting, counted, share, epochs, WHAT[setting], False,
        task.float_points, task.points(lambda x: run(x)[0]), _share(made, whole),
        made.parameters / whole.parameters, round(seconds, 1),
    )  # fmt: skip


def peer(
    task: Task, share: float, method: str, setting: str, epochs: int = 0
) -> tuple[Made | None, Row]:
    """A peer in one setting."""
    prune: Peer = importlib.import_module(f"tests.benchmarks.prune.peers.{PEERS[method][0]}").prune
    start = time.perf_counter()
    try:
        made = prune(task, share, setting)
        if epochs:
            made.learn(task, epochs)
    except Refused as error:
        return None, refusal(task.name, method, setting, share, epochs, str(error))
    seconds = time.perf_counter() - start
    module = made.bare()
    program = traced(module, task.base.example, task.name)
    return made, Row(
        task.name, method, setting, made.counted, share, epochs, made.what, made.labels,
        task.float_points, task.points(module), _share(program, task.program),
        made.weights(program) / task.program.parameters, round(seconds, 1),
    )  # fmt: skip


def _share(made: Program, whole: Program) -> float:
    return multiply_accumulates(made) / multiply_accumulates(whole)


def refusal(
    model: str, method: str, setting: str, share: float, epochs: int, why: str,
    counted: Counted = "macs",
) -> Row:  # fmt: skip
    """A method that gave nothing."""
    return Row(
        model, method, setting, counted, share, epochs, "", False, 0.0, 0.0, 0.0, 0.0, 0.0, why
    )


def rows(task: Task, method: str, setting: str, epochs: int, share: float) -> Iterator[Row]:
    """One method in one setting; edgemix also with as many weights as who only zeroes them."""
    for counted in _COUNTED if (method, setting) == ("edgemix", "refit") else _COUNTED[:1]:
        try:
            if method == "edgemix":
                yield ours(task, share, setting, counted, epochs)[1]
            else:
                yield peer(task, share, method, setting, epochs)[1]
        except Exception as error:  # what breaks is a line that says so
            first = (str(error).strip() or repr(error)).splitlines()[0]
            why = f"{type(error).__name__}: {first}"[:200]
            yield refusal(task.name, method, setting, share, epochs, why, counted)


_COUNTED: tuple[Counted, ...] = ("macs", "parameters")
