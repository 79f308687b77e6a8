"""Running a recipe's algorithms: from a float program to a quantized one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix.errors import EdgemixError, InputError
from edgemix.program import Program
from edgemix.quantize.algorithms import brevitas
from edgemix.quantize.algorithms.adaround import learn_rounding
from edgemix.quantize.algorithms.bias import correct_biases
from edgemix.quantize.algorithms.domains import cut_domains
from edgemix.quantize.algorithms.equalize import equalize
from edgemix.quantize.algorithms.gptq import round_by_columns
from edgemix.quantize.algorithms.migrate import Stats
from edgemix.quantize.algorithms.mixed import Budget, choose_widths, widen
from edgemix.quantize.algorithms.ranges import choose_ranges
from edgemix.quantize.algorithms.reconstruct import reconstruct
from edgemix.quantize.algorithms.reparam import reparam
from edgemix.quantize.algorithms.smooth import smooth
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.draft import Draft
from edgemix.quantize.levels import Algorithm
from edgemix.quantize.recipe import Recipe

Progress = Callable[[str, float], None]
"""Hears the algorithm's name and the share of it that is done."""

_EQUALIZING: dict[Algorithm, Callable[[GraphModule, Stats, Recipe], int]] = {
    "equalize": equalize,
    "reparam": reparam,
    "smooth": smooth,
}
"""These change the float program; in the order in which they run."""

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

_MEASURED = 128
_BATCH = 32
OBSERVERS = "observers"


@dataclass(frozen=True)
class Effect:
    """What one algorithm did to the outputs on calibration samples."""

    algorithm: str
    seconds: float
    sqnr_db: float | None
    """After it; None where it was not measured, or the outputs are those of the float program."""
    kept: bool = True


@dataclass(frozen=True)
class Quantized:
    """A quantized program, and how it came about."""

    program: Program
    recipe: Recipe
    """With the exceptions that a budget or a fallback added."""
    effects: tuple[Effect, ...]


def improve(program: Program, samples: Tensor, recipe: Recipe) -> Quantized:
    """All of it on samples that fit in memory: calibrate, :func:`prepare`, :func:`finish`.

    Args:
        program: float, with the standard rewrites.
        samples: inputs [n, ...].
        recipe: with its algorithms.
    """
    batches = torch.split(samples, _BATCH * program.inputs[0].shape[0])
    calibration = calibrate(program, batches)
    ready = prepare(program, calibration, recipe)
    if ready is not program:
        calibration = calibrate(ready, batches)
    return finish(ready, calibration, recipe, samples)


def prepare(program: Program, calibration: Calibration, recipe: Recipe) -> Program:
    """The equivalent float program that the recipe's equalizing algorithms make.

    A program that they did not change comes back as it is; one that they changed has to be
    calibrated again.

    Raises:
        EdgemixError: the program computes something else afterwards.
    """
    start = time.perf_counter()
    wanted = [name for name in _EQUALIZING if name in recipe.algorithms]
    if not wanted or recipe.activations is None:
        return program
    module, stats = program.module(), dict(calibration.stats)
    places: dict[str, int] = {name: _EQUALIZING[name](module, stats, recipe) for name in wanted}
    if not any(places.values()):
        return program
    module.graph.eliminate_dead_code()
    after = program.with_module(module, "equalize channels", places, time.perf_counter() - start)
    _check(program, after)
    return after


_TOLERANCE = 1e-3
"""Of the outputs' range: factors reach a thousand, so sums lose more of float32's bits than by a
rewrite; a wrong factor changes outputs by their whole size."""


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
    expected = None
    measurable = _measurable(program)
    if recipe.budget is not None or recipe.fallback != "none":
        if not measurable:
            raise InputError(
                "a budget for widths, or a fallback, needs a program with one input and no states",
                do="give exceptions by name",
            )
        draft = _with_widths(draft, samples, say)
    if recipe.algorithms and measurable:
        expected = _real(draft, samples)
        error = _error(draft, samples, expected)
        effects.append(Effect(OBSERVERS, time.perf_counter() - start, _db(expected, error)))
    if "domains" in recipe.algorithms and recipe.activations is not None:
        clock = time.perf_counter()
        draft = cut_domains(draft)
        if expected is not None:
            error = _error(draft, samples, expected)
            effects.append(Effect("domains", time.perf_counter() - clock, _db(expected, error)))
    for name, algorithm in _WITH_DATA.items():
        if name not in recipe.algorithms or expected is None:
            continue
        clock = time.perf_counter()
        tried = algorithm(draft, samples, lambda share: say(name, share))  # noqa: B023
        after = _error(tried, samples, expected)
        kept = name not in _GUARDED or after < error
        if kept:
            draft, error = tried, after
        effects.append(Effect(name, time.perf_counter() - clock, _db(expected, after), kept))
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


def _measurable(program: Program) -> bool:
    return not program.states and len(program.inputs) == 1


def observers_alone(
    program: Program, calibration: Calibration, recipe: Recipe, samples: Tensor
) -> Effect | None:
    """What a program without any algorithm is worth; None where that cannot be measured here."""
    if not recipe.algorithms or not _measurable(program):
        return None
    start = time.perf_counter()
    draft = Draft.start(program, calibration, recipe)
    expected = _real(draft, samples)
    reached = _db(expected, _error(draft, samples, expected))
    return Effect(OBSERVERS, time.perf_counter() - start, reached)


def equalizing(recipe: Recipe) -> str:
    """Names of the algorithms that :func:`prepare` runs for a recipe."""
    return ", ".join(name for name in _EQUALIZING if name in recipe.algorithms)


def _real(draft: Draft, samples: Tensor) -> Tensor:
    with (simulation := draft.simulate()).only():
        return simulation.run(samples[:_MEASURED])


def _error(draft: Draft, samples: Tensor, expected: Tensor) -> float:
    found = draft.simulate().run(samples[:_MEASURED])
    return float((found - expected).double().square().sum())


def _db(expected: Tensor, error: float) -> float | None:
    signal = float(expected.double().square().sum())
    if error == 0.0 or signal == 0.0:
        return None
    return 10.0 * float(torch.log10(torch.tensor(signal / error, dtype=torch.float64)))
