"""What every algorithm adds, on held-out samples: one after the other, in their order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from edgemix import proof, rewrites
from edgemix.program import Origin, Program
from edgemix.quantize.algorithms.adaround import learn_rounding
from edgemix.quantize.algorithms.bias import correct_biases
from edgemix.quantize.algorithms.domains import cut_domains
from edgemix.quantize.algorithms.gptq import round_by_columns
from edgemix.quantize.algorithms.ranges import choose_ranges
from edgemix.quantize.algorithms.reconstruct import reconstruct
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.draft import Draft
from edgemix.quantize.equalizing import prepare
from edgemix.quantize.levels import Algorithm
from edgemix.quantize.recipe import Recipe
from edgemix.rewrites.base import apply
from tests.benchmarks.ptq.suite import Task

_EQUALIZING: tuple[Algorithm, ...] = ("equalize", "reparam", "smooth")


@dataclass(frozen=True)
class Step:
    """One more algorithm."""

    model: str
    recipe: str
    algorithm: str
    """With "instead": in the place of the one before it, which the next goes on from."""
    sqnr_db: float | None
    points: float
    seconds: float


def ablation(task: Task, recipe_name: str, *, learned: bool) -> Iterator[Step]:
    """Every algorithm on what those before it made; ``learned``: reconstruction, too."""
    recipe = Recipe.load(recipe_name)
    traced = Program.trace(task.module, task.example, Origin(task.name))
    unfolded = traced
    for name in rewrites.STANDARD:
        if not name.startswith("fold_norm") and name != "fold_scale":
            unfolded = apply(unfolded, rewrites.load(name))
    yield _step(task, _draft(task, unfolded, recipe), "observers, nothing folded", 0.0)
    program = rewrites.standard(traced)
    draft = _draft(task, program, recipe)
    yield _step(task, draft, "folding", 0.0)
    for i, name in enumerate(_EQUALIZING):
        start = time.perf_counter()
        # As where weights are rounded with care later: all that was asked for is done.
        algorithms = (*_EQUALIZING[: i + 1], "gptq")
        chosen = recipe.model_copy(update={"algorithms": algorithms})
        calibration = calibrate(program, task.calibration.split(64))
        prepared, _ = prepare(program, calibration, chosen, task.calibration)
        draft = _draft(task, prepared, recipe)
        yield _step(task, draft, name, time.perf_counter() - start)
    draft = cut_domains(draft)
    yield _step(task, draft, "domains", 0.0)
    for name, algorithm in (("ranges", choose_ranges), ("adaround instead", learn_rounding), ("gptq", round_by_columns), *([("reconstruct", reconstruct)] if learned else []), ("bias", correct_biases)):  # fmt: skip
        start = time.perf_counter()
        after = algorithm(draft, task.calibration)
        yield _step(task, after, name, time.perf_counter() - start)
        if not name.endswith("instead"):
            draft = after


def _draft(task: Task, program: Program, recipe: Recipe) -> Draft:
    return Draft.start(program, calibrate(program, task.calibration.split(64)), recipe)


def _step(task: Task, draft: Draft, name: str, seconds: float) -> Step:
    simulation = draft.simulate()
    with torch.no_grad():
        found = torch.cat([simulation.run(x) for x in task.samples.split(100)])
    sqnr = proof.sqnr_db(task.outputs, found)
    return Step(task.name, draft.recipe.name, name, sqnr, task.points(found), round(seconds, 1))
