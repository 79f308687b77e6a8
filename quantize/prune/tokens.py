"""Fewer tokens: attention models in smaller shapes, without training.

Where tokens may go is found in the graph (``stream.py``), how they go is the method's
(``matching.py``), and how many go at each place is what costs the outputs least
(``schedule.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from edgemix import graph as g
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.prune.choices import TokenMethod
from edgemix.quantize.prune.schedule import Study
from edgemix.quantize.prune.shorten import counts_of, inline, shorten
from edgemix.quantize.prune.stream import Stream, find

_MEASURED, _WORK = 64, 5e9
"""Samples that schedules are compared on, and their multiply-accumulates, at most."""
_LEAST = 4
"""Samples that they are compared on, however large the model."""


@dataclass(frozen=True)
class Reduced:
    """One place at which tokens go."""

    where: g.Where
    before: int
    after: int


@dataclass(frozen=True)
class TokenPlan:
    """How many tokens there are, and what that saves."""

    method: TokenMethod
    schedule: str
    """``constant``: as many go everywhere; ``greedy``: where it costs the outputs least."""
    kept: int
    """Tokens in front that always stay."""
    layers: tuple[Reduced, ...]
    macs: tuple[int, int]
    """Multiply-accumulates before and after, what choosing tokens costs among them."""
    choosing: int
    """Of those after, what choosing and moving tokens takes."""
    sqnr_db: float | None
    """Of the outputs on the samples; None where they are the same."""


def reduce_tokens(
    program: Program,
    samples: Tensor,
    method: TokenMethod = "tome",
    budget: float = 0.65,
    on_step: Callable[[float], None] = lambda _: None,
    *,
    proportional: bool = True,
) -> tuple[Program, TokenPlan]:
    """Let tokens go until a program keeps within a budget.

    Where the model is asked for its class token alone, the last attention computes no other, which
    changes nothing. Then the same number goes at every place, or as many as cost the outputs least
    in steps of a sixteenth, whichever gives the smaller error.

    Args:
        program: float, after the standard rewrites; the result takes them again, which make
            constants of the numbers that choosing tokens computes with.
        samples: [n, ...], of which the first 64 are run, fewer of large models.
        method: who goes, and what becomes of it.
        budget: multiply-accumulates that stay, as a share.
        on_step: called with the share that is done.
        proportional: let attention count a merged token as often as the tokens it stands for.

    Raises:
        InputError: there are no tokens that can go, or not enough of them.
    """
    if program.quantized:
        raise InputError(
            "tokens are reduced in the float program", do="reduce them first, quantize then"
        )
    if not budget > 0.0:
        raise InputError(f"a budget must be above 0 %: {budget:.1%}")
    if not len(samples):
        raise InputError("schedules are compared on samples, and there are none")
    enough = max(int(_WORK / max(multiply_accumulates(program), 1)), _LEAST)
    study = Study(program, find(program), method, proportional, samples[: min(enough, _MEASURED)])
    gone, schedule, error = study.choose(budget, on_step)
    module = g.flat(program.module())
    shorten(module, study.stream, gone, method, proportional)
    inline(module)
    step = Step("reduce_tokens", {"method": method, "gone": list(gone)})
    small = program.with_module(module, step)
    choosing = sum(study.overhead(gone))
    plan = TokenPlan(
        method, schedule, study.stream.kept, tuple(_layers(study.stream, gone)),
        (multiply_accumulates(program), multiply_accumulates(small)), choosing,
        study.db(error),
    )  # fmt: skip
    on_step(1.0)
    return small, plan


def _layers(stream: Stream, gone: Sequence[int]) -> list[Reduced]:
    counts = counts_of(stream, gone)
    return [
        Reduced(p.where, *pair) for p, pair in zip(stream.places, pairwise(counts), strict=True)
    ]
