"""The algorithms that change the float program: channels of like sizes, before ranges are taken."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix.errors import EdgemixError
from edgemix.program import Program, Step
from edgemix.quantize.algorithms.equalize import equalize
from edgemix.quantize.algorithms.migrate import Stats
from edgemix.quantize.algorithms.reparam import reparam
from edgemix.quantize.algorithms.smooth import smooth
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.draft import Draft
from edgemix.quantize.effect import MEASURED, OBSERVERS, Effect, Yardstick, measurable
from edgemix.quantize.levels import Algorithm
from edgemix.quantize.recipe import Recipe

_EQUALIZING: dict[Algorithm, Callable[[GraphModule, Stats, Recipe], int]] = {
    "equalize": equalize,
    "reparam": reparam,
    "smooth": smooth,
}
"""In the order in which they run."""

_ROUNDING: frozenset[Algorithm] = frozenset(
    {"gptq", "adaround", "reconstruct", "brevitas-gptq", "brevitas-gpfq", "brevitas-learned"}
)

BATCH = 32
"""Samples at once, times those that the program takes in any case."""
_TOLERANCE = 1e-3
"""Of the outputs' range: factors reach a thousand, so sums lose more of float32's bits than by a
rewrite; a wrong factor changes outputs by their whole size."""


def prepare(
    program: Program, calibration: Calibration, recipe: Recipe, samples: Tensor
) -> tuple[Program, tuple[Effect, ...]]:
    """The equivalent float program that the recipe's equalizing algorithms make, and their effects.

    Where no algorithm will round the weights with care, each is kept only if the quantized outputs
    come nearer to the float ones by it: it judges by its seams' own noise, not by what the outputs
    make of that. Such rounding takes most of what moved into the weights back, so that what is kept
    makes no difference before it; nor is there a choice for several inputs, or for states.

    A program that they did not change comes back as it is, without effects; one that they changed
    has to be calibrated again.

    Args:
        program: float, with the standard rewrites.
        calibration: of this program.
        recipe: with its algorithms.
        samples: inputs [n, ...]; the first 128 are used.

    Raises:
        EdgemixError: the program computes something else afterwards.
    """
    wanted = [name for name in _EQUALIZING if name in recipe.algorithms]
    if not wanted or recipe.activations is None:
        return program, ()
    start = time.perf_counter()
    module, stats = program.module(), dict(calibration.stats)
    found = program
    places: dict[str, int] = dict.fromkeys(wanted, 0)
    careful = not _ROUNDING.isdisjoint(recipe.algorithms)
    guard: _Guard | None = None
    effects: list[Effect] = []
    for name in wanted:
        clock = time.perf_counter()
        tried, tried_stats = copy.deepcopy(module), dict(stats)
        count = _EQUALIZING[name](tried, tried_stats, recipe)
        if not count:
            continue
        tried.graph.eliminate_dead_code()
        counts = places | {name: count}
        seconds = time.perf_counter() - start
        after = program.with_module(tried, Step("equalize channels", counts, round(seconds, 3)))
        _check(program, after)
        if measurable(program):
            if guard is None:
                guard = _Guard(program, recipe, samples)
                effects.append(Effect(OBSERVERS, guard.seconds, guard.db))
                clock = time.perf_counter()
            better, reached = guard.judged(after)
            kept = better or careful
            effects.append(Effect(name, time.perf_counter() - clock, reached, kept))
            if not kept:
                continue
        module, stats, found, places = tried, tried_stats, after, counts
    return found, tuple(effects)


class _Guard:
    """What a program is worth when observers alone quantize it: the best so far."""

    def __init__(self, program: Program, recipe: Recipe, samples: Tensor) -> None:
        start = time.perf_counter()
        self._recipe, size = recipe, program.inputs[0].shape[0]
        whole = min(max(MEASURED // size, 1) * size, len(samples) - len(samples) % size)
        self._batches = torch.split(samples[:whole], BATCH * size)
        draft = self._draft(program)
        self._yardstick = Yardstick(draft, samples[:whole])
        self._least = self._yardstick.error(draft)
        self.seconds = time.perf_counter() - start
        self.db = self._yardstick.db(self._least)

    def judged(self, program: Program) -> tuple[bool, float | None]:
        """Whether a program is better than the best so far, and its SQNR."""
        error = self._yardstick.error(self._draft(program))
        better = error < self._least
        self._least = min(error, self._least)
        return better, self._yardstick.db(error)

    def _draft(self, program: Program) -> Draft:
        return Draft.start(program, calibrate(program, self._batches), self._recipe)


def _check(before: Program, after: Program) -> None:
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(spec.shape, generator=generator) for spec in before.takes]
    for expected, found in zip(before.call(*x), after.call(*x), strict=True):
        span = max(float(expected.abs().max()), 1e-6)
        worst = float((expected - found).abs().max())
        if not worst <= _TOLERANCE * span:
            raise EdgemixError(
                f"equalizing channels changed the result by {worst:.3g} (of {span:.3g})",
                do="leave equalize, reparam and smooth out, and report this model",
            )
