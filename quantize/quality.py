"""Running a recipe's algorithms: from a float program to a quantized one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.algorithms import brevitas
from edgemix.quantize.algorithms.adaround import learn_rounding
from edgemix.quantize.algorithms.bias import correct_biases
from edgemix.quantize.algorithms.domains import cut_domains
from edgemix.quantize.algorithms.gptq import round_by_columns
from edgemix.quantize.algorithms.mixed import Budget, choose_widths, widen
from edgemix.quantize.algorithms.ranges import choose_ranges
from edgemix.quantize.algorithms.reconstruct import reconstruct
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.draft import Draft
from edgemix.quantize.effect import OBSERVERS, Effect, Yardstick, measurable
from edgemix.quantize.equalizing import BATCH, prepare
from edgemix.quantize.levels import Algorithm
from edgemix.quantize.recipe import Recipe

Progress = Callable[[str, float], None]
"""Hears the algorithm's name and the share of it that is done."""

_WITH_DATA: dict[Algorithm, Callable[[Draft, Tensor, Callable[[float], None]], Draft]] = {
    "ranges": choose_ranges,
    "gptq": round_by_columns,
    "adaround": learn_rounding,
    "brevitas-gptq": brevitas.gptq,
    "brevitas-gpfq": brevitas.gpfq,
    "brevitas-learned": brevitas.learned,
    "reconstruct": reconstruct,
    "bias": correct_biases,
}
"""These change the draft; in the order in which they run."""

_GUARDED: tuple[Algorithm, ...] = ("bias", "reconstruct")
"""Kept only where the outputs on the calibration samples come nearer to the float ones. Roundings
are kept in any case, since what they do to a channel's mean is for the bias to mend; so are ranges,
which were chosen for samples beside those that were seen."""

AGAIN = "observers, all samples"
"""Of the equalized program, which was judged by fewer."""


@dataclass(frozen=True)
class Quantized:
    """A quantized program, and how it came about."""

    program: Program
    recipe: Recipe
    """With the exceptions that a budget or a fallback added."""
    effects: tuple[Effect, ...]

    def after(self, prepared: tuple[Effect, ...]) -> Quantized:
        """The same with the effects of :func:`prepare` before its own."""
        if not (prepared and self.effects):
            return self
        again = replace(self.effects[0], algorithm=AGAIN)
        return replace(self, effects=(*prepared, again, *self.effects[1:]))


def improve(program: Program, samples: Tensor, recipe: Recipe) -> Quantized:
    """All of it on samples that fit in memory: calibrate, :func:`prepare`, :func:`finish`.

    Args:
        program: float, with the standard rewrites.
        samples: inputs [n, ...].
        recipe: with its algorithms.
    """
    batches = torch.split(samples, BATCH * program.inputs[0].shape[0])
    calibration = calibrate(program, batches)
    ready, effects = prepare(program, calibration, recipe, samples)
    if ready is not program:
        calibration = calibrate(ready, batches)
    return finish(ready, calibration, recipe, samples).after(effects)


def finish(
    program: Program, calibration: Calibration, recipe: Recipe, samples: Tensor,
    say: Progress = lambda _name, _share: None,
) -> Quantized:  # fmt: skip
    """The quantized program: the recipe's plan, improved by its other algorithms.

    Args:
        program: float, as :func:`prepare` gave it.
        calibration: of this program.
        recipe: with its algorithms.
        samples: inputs [n, ...] for algorithms that look at data; a few hundred are enough.
        say: hears the progress.
    """
    start = time.perf_counter()
    draft = Draft.start(program, calibration, recipe)
    effects: list[Effect] = []
    yardstick = None
    measured = measurable(program)
    if recipe.budget is not None or recipe.fallback != "none":
        if not measured:
            raise InputError(
                "a budget for widths, or a fallback, needs a program with one input and no states",
                do="give exceptions by name",
            )
        draft = _with_widths(draft, samples, say)
    if recipe.algorithms and measured:
        yardstick = Yardstick(draft, samples)
        error = yardstick.error(draft)
        effects.append(Effect(OBSERVERS, time.perf_counter() - start, yardstick.db(error)))
    if "domains" in recipe.algorithms and recipe.activations is not None:
        clock = time.perf_counter()
        draft = cut_domains(draft)
        if yardstick is not None:
            error = yardstick.error(draft)
            effects.append(Effect("domains", time.perf_counter() - clock, yardstick.db(error)))
    for name, algorithm in _WITH_DATA.items():
        if name not in recipe.algorithms or yardstick is None:
            continue
        clock = time.perf_counter()
        tried = algorithm(draft, samples, lambda share: say(name, share))  # noqa: B023
        after = yardstick.error(tried)
        kept = name not in _GUARDED or after < error
        if kept:
            draft, error = tried, after
        effects.append(Effect(name, time.perf_counter() - clock, yardstick.db(after), kept))
    finished = draft.finish(time.perf_counter() - start)
    return Quantized(finished, draft.recipe, tuple(effects))


def _with_widths(draft: Draft, samples: Tensor, say: Progress) -> Draft:
    """The draft with the widths that the recipe's budget and fallback ask for."""
    recipe = draft.recipe
    if recipe.budget is not None:
        budget = Budget.parse(recipe.budget)
        chosen = choose_widths(
            draft, samples, budget, recipe.widths, lambda share: say("widths", share)
        )
        draft = Draft.start(draft.program, draft.calibration, chosen)
    if recipe.fallback != "none":
        chosen = widen(
            draft, samples, recipe.keep_db, recipe.fallback, lambda share: say("fallback", share)
        )
        draft = Draft.start(draft.program, draft.calibration, chosen)
    return draft
