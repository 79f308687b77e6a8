"""One model by one method: what everyone is given, and what is measured."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix import data as sets
from edgemix import proof, rewrites
from edgemix.batched import batched
from edgemix.program import Origin, Program
from edgemix.quantize.levels import QUALITY, Algorithm, Quality
from edgemix.quantize.quality import improve
from edgemix.quantize.recipe import Recipe
from tests.benchmarks.ptq import data
from tests.benchmarks.ptq.models import REFERENCES
from tests.benchmarks.ptq.peers import Bits, Peer, Refused

CALIBRATION, EVALUATION = 256, 1000
BITS: dict[str, Bits] = {"int8": (8, 8), "w6a6": (6, 6), "w4a8": (4, 8), "w4a4": (4, 4)}
"""Recipes of edgemix, and the same for peers."""
PEERS = (
    "onnx_runtime", "ai_edge", "nncf_torch", "torchao_pt2e", "brevitas_ptq", "mct",
    "neural_compressor",
)  # fmt: skip
WHAT = {
    "int8": "every operator",
    "w6a6": "products 6/6 bits, first and last 8/8, every other operator 8",
    "w4a8": "weights 4 bits, first and last 8, every operator 8",
    "w4a4": "products 4/4 bits, first and last 8/8, every other operator 8",
}
_DATA = {
    "caformer": "digits32", "poolformer": "digits32", "hybrid": "digits32", "tsmixer": "series",
    "lmuformer": "keywords", "jets": "jets",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    model: str
    recipe: str
    method: str
    setting: str
    what: str
    every_operator: bool
    float_points: float
    points: float
    """Accuracy in percent; for forecasts, the share of variance that is explained."""
    sqnr_db: float | None
    seconds: float
    refused: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Task:
    """A reference model with its data."""

    name: str
    module: torch.nn.Module
    example: tuple[Tensor, ...]
    calibration: Tensor
    samples: Tensor
    answers: npt.NDArray[Any]
    outputs: Tensor
    """Of the float model."""

    @classmethod
    def load(cls, name: str, calibration: int = CALIBRATION) -> Task:
        """The model, calibration samples in a fixed random order, held-out samples."""
        module, example = REFERENCES[name]()
        source = _DATA[name]
        load = getattr(data, source) if hasattr(data, source) else sets.SETS[source]
        train, held_out = load("train"), load("heldout")
        order = np.random.default_rng(0).permutation(len(train))[:calibration]
        picked = np.random.default_rng(1).permutation(len(held_out))[:EVALUATION]
        answers = data.futures("heldout") if source == "series" else held_out.labels
        samples = torch.from_numpy(np.array(held_out.samples[picked]))
        with torch.no_grad():
            outputs = torch.cat([module(x) for x in torch.split(samples, 100)])
        return cls(
            name, module, example, torch.from_numpy(np.array(train.samples[order])), samples,
            answers[picked], outputs,
        )  # fmt: skip

    def points(self, outputs: Tensor) -> float:
        """Accuracy in percent, or the share of variance explained."""
        if self.answers.ndim == 2:
            rest = ((outputs.numpy() - self.answers) ** 2).sum()
            return 100 * (1 - float(rest / ((self.answers - self.answers.mean()) ** 2).sum()))
        return 100 * float((outputs.argmax(1).numpy() == self.answers).mean())

    def row(self, recipe: str, method: str, outputs: Tensor, seconds: float, **more: Any) -> Row:
        """What these outputs are worth."""
        return Row(
            self.name, recipe, method, float_points=self.points(self.outputs),
            points=self.points(outputs), sqnr_db=proof.sqnr_db(self.outputs, outputs),
            seconds=round(seconds, 1), **more,
        )  # fmt: skip


def ours(
    task: Task, recipe_name: str, quality: Quality, algorithms: tuple[Algorithm, ...] | None = None
) -> Row:
    """edgemix: the quantized program, run on many samples at once."""
    chosen = QUALITY[quality] if algorithms is None else algorithms
    recipe = Recipe.load(recipe_name).model_copy(update={"algorithms": chosen})
    start = time.perf_counter()
    program = rewrites.standard(Program.trace(task.module, task.example, Origin(task.name)))
    made = improve(program, task.calibration, recipe)
    seconds = time.perf_counter() - start
    run = batched(made.program)[1]
    with torch.no_grad():
        outputs = torch.cat([run(x)[0] for x in torch.split(task.samples, 50)])
    setting = quality if algorithms is None else ", ".join(algorithms) or "observers alone"
    return task.row(
        recipe_name, "edgemix", outputs, seconds, setting=setting, what=WHAT[recipe_name],
        every_operator=True,
    )  # fmt: skip


def peer(task: Task, recipe_name: str, name: str) -> Iterator[Row]:
    """A peer, in every setting that it was given."""
    quantize: Peer = importlib.import_module(f"tests.benchmarks.ptq.peers.{name}").quantize
    start = time.perf_counter()
    try:
        for made in quantize(task.module, task.calibration, BITS[recipe_name]):
            outputs = made.run(task.samples).detach()
            seconds = time.perf_counter() - start
            yield task.row(
                recipe_name, name, outputs, seconds, setting=made.setting, what=made.what,
                every_operator=made.every_operator,
            )  # fmt: skip
    except Refused as error:
        yield refusal(task.name, recipe_name, name, str(error))


def refusal(model: str, recipe: str, method: str, why: str) -> Row:
    """A method that gave nothing."""
    return Row(model, recipe, method, "", "", False, 0.0, 0.0, None, 0.0, why)
