"""From a source to a quantized program: rewrites, the rehearsal, calibration, algorithms."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from edgemix import data, files, rewrites
from edgemix import endurance as endure
from edgemix import graph as g
from edgemix.data import Data
from edgemix.errors import InputError, UnsupportedError
from edgemix.family import CALIBRATION
from edgemix.latency.estimator import Device, Estimator
from edgemix.order import Listener, Order
from edgemix.program import Program
from edgemix.pruning import Gauge, pruned
from edgemix.quantize.calibrate import Calibration, DataPrint, calibrate, fingerprint
from edgemix.quantize.convert import quantize
from edgemix.quantize.effect import Effect
from edgemix.quantize.equalizing import prepare
from edgemix.quantize.leaks import shift_leaks
from edgemix.quantize.levels import QUALITY
from edgemix.quantize.quality import Quantized, finish
from edgemix.quantize.recipe import Recipe
from edgemix.quantize.strip import strip
from edgemix.remedies import weight_bytes
from edgemix.report.schema import PruningResult
from edgemix.targets import FPGA
from edgemix.targets.base import Target

BATCH = 64
AS_IT_CAME = "as it came"
"""Name of the recipe of a source that is quantized already."""
_ALGORITHM_SAMPLES = 512
"""Calibration samples that algorithms look at, at most: they live in memory."""
_FEW_SAMPLES = 8


@dataclass(frozen=True)
class Outcome:
    """A quantized program, and what it came from."""

    program: Program
    """Float, after every rewrite: the same operators as ``quantized``."""
    quantized: Program
    recipe: dict[str, Any]
    """As JSON, with the exceptions that a budget or a fallback added."""
    effects: tuple[Effect, ...] = ()
    calibration: Calibration | None = None
    """None where the source came quantized; so is ``data``."""
    data: Data | None = None
    pruning: PruningResult | None = None
    """None: nothing was cut."""

    def warnings(self) -> Iterator[str]:
        """What to know about the calibration."""
        if self.calibration is not None and self.calibration.data.samples < _FEW_SAMPLES:
            count = self.calibration.data.samples
            yield (
                f"ranges come from {count} sample{'s' if count != 1 else ''}: what others exceed "
                "will saturate; calibrate with a hundred or more"
            )
        if self.calibration is not None and self.quantized.floats == "float16":
            yield from _overflows(self.program, self.calibration)


_LARGEST_FLOAT16 = 65504.0


def _overflows(program: Program, calibration: Calibration) -> Iterator[str]:
    """What leaves the range of 16-bit floats, and by how much."""
    reached = {n: max(-s.minimum, s.maximum) for n, s in calibration.stats.items()}
    beyond = [n for n in program.shared.graph.nodes if reached.get(n.name, 0) > _LARGEST_FLOAT16]
    if beyond:
        worst = max(beyond, key=lambda n: reached[n.name])
        more = f" and {len(beyond) - 1} more" if len(beyond) > 1 else ""
        yield (
            f"beyond the range of 16-bit floats (±65,504): {g.where(worst)} with "
            f"{reached[worst.name]:,.0f}{more}; what is beyond becomes infinite, so deploy this "
            "model in float32"
        )


def recipe_of(order: Order) -> Recipe:
    """The recipe that an order names, with the widths and the algorithms that it asks for."""
    recipe = Recipe.load(order.recipe or "int8")
    if order.bits is not None:
        recipe = recipe.in_bits(order.bits)
    if order.quality is not None:
        recipe = recipe.model_copy(update={"algorithms": QUALITY[order.quality]})
    return recipe


def quantized(
    order: Order,
    source: Program,
    chosen: list[Target],
    say: Listener,
    held_out: Data | None = None,
    devices: Mapping[str, Device] | None = None,
    estimator: Estimator | None = None,
) -> Outcome:
    """The quantized program of a source, as an order wants it.

    Args:
        order: what is wanted.
        source: the model.
        chosen: the targets that must take it.
        say: hears of the progress.
        held_out: what pruning's curve is measured on; None: the calibration data.
        devices: whose times a pruning's budget may be about.
        estimator: who estimates these times.

    Raises:
        InputError: the data cannot be used, or the order asks for something of a source that came
            quantized.
        UnsupportedError: a target cannot take a node; the findings say which and why.
    """
    if source.quantized:
        return _as_it_came(order, source, chosen, say)
    if order.calibrate is None:
        raise InputError("there is no calibration data", do="name it with --calibrate")
    recipe = recipe_of(order)
    samples = data.load(
        order.calibrate, source.inputs[0], steps=bool(source.states), most=order.samples
    )
    if source.states:
        samples = _streamed(samples, order)
    with say.step("rewrite"):
        program = shift_leaks(rewrites.standard(source, recipe.split), recipe.shift_leaks)
    cut = None
    if order.pruning is not None and order.pruning.anything:
        gauge = _gauge(recipe, samples, chosen, devices or {}, estimator)
        cut = pruned(program, order.pruning, samples, held_out or samples, gauge, say)
        program = cut.program
    # A rehearsal on one batch: what a target cannot take is said before the long work.
    with say.step("check targets"):
        size = program.inputs[0].shape[0]
        rehearsal = quantize(program, calibrate(program, samples.batches(size, size)), recipe)
        _refuse_unsupported(chosen, rehearsal)
    calibration = _calibration(order, program, samples, say)
    few = samples.head(min(order.samples, _ALGORITHM_SAMPLES)).tensor()
    with say.step("equalize channels"):
        equalized, effects = prepare(program, calibration, recipe, few)
    if equalized is not program:
        program, calibration = equalized, _calibration(order, equalized, samples, say)
    made = _finished(program, calibration, recipe, few, say).after(effects)
    used = made.recipe.model_dump(mode="json")
    result = None if cut is None else cut.result
    return Outcome(program, made.program, used, made.effects, calibration, samples, result)


def _gauge(
    recipe: Recipe,
    samples: Data,
    chosen: list[Target],
    devices: Mapping[str, Device],
    estimator: Estimator | None,
) -> Gauge:
    """Says what the first target makes of a program, quantized as the order wants it."""

    def rehearsed(program: Program) -> Program:
        size = program.inputs[0].shape[0]
        return quantize(program, calibrate(program, samples.batches(size, size)), recipe)

    return Gauge(
        devices,
        estimator,
        next((t for t in chosen if t.name in FPGA), None),
        rehearsed,
        lambda program: weight_bytes(program, recipe, chosen[0].name),
        tuple(t.name for t in chosen),
    )


def _as_it_came(order: Order, source: Program, chosen: list[Target], say: Listener) -> Outcome:
    if (order.recipe, order.quality, order.bits, order.pruning) != (None, None, None, None):
        raise InputError(
            f"{order.source} is quantized already",
            do="leave --recipe, --quality, --bits and --prune out",
        )
    with say.step("check targets"):
        program = rewrites.standard(source)
        _refuse_unsupported(chosen, program)
    return Outcome(strip(program), program, {"name": source.recipe or AS_IT_CAME})


def _streamed(source: Data, order: Order) -> Data:
    """Calibration samples behind each other: ranges are those of a stream that is not reset."""
    x = source.head(order.samples).samples
    streams = endure.stream(x, order.stream, most=order.samples).numpy()
    return Data(source.source, streams)


def _refuse_unsupported(chosen: list[Target], program: Program) -> None:
    lines = [f"  {t.name}: {finding}" for t in chosen for finding in t.supports(program)]
    if lines:
        raise UnsupportedError(
            "a target cannot take this program\n" + "\n".join(lines),
            do="leave the target out with --to, or follow the remedy",
        )


def _calibration(order: Order, program: Program, source: Data, say: Listener) -> Calibration:
    """The saved calibration of the same program and data if there is one, else a new one.

    It lies in the output folder, or beside a program that inherits it from its family.

    One that was interrupted goes on where it was: what it had gathered lies in the cache.
    """
    limit = min(order.samples, len(source))
    limit -= limit % program.inputs[0].shape[0]
    beside = Path(order.source).with_name(CALIBRATION)
    saved = next((f for f in (order.out / CALIBRATION, beside) if f.is_file()), None)
    if saved is not None:
        wanted = DataPrint(
            limit, source.samples.shape[1:], fingerprint(source.batches(BATCH, limit))
        )
        # One that is damaged, or of an older edgemix, is about to be replaced anyway.
        with suppress(InputError):
            old = Calibration.load(saved)
            if (old.program, old.data) == (program.digest, wanted):
                return old
    size = program.inputs[0].shape[0]
    key = json.dumps([program.digest, source.source, source.samples.shape, limit])
    with say.step(f"calibrate on {source.source}", limit) as done:
        seen = 0

        def count(samples: int) -> None:
            nonlocal seen
            seen += samples
            done(seen)

        return calibrate(
            program,
            source.batches(max(BATCH // size, 1) * size, limit),
            on_batch=count,
            checkpoint=files.cache() / f"calibration-{files.name_of(key)}.safetensors",
        )


def _finished(
    program: Program, calibration: Calibration, recipe: Recipe, samples: Tensor, say: Listener
) -> Quantized:
    """The quantized program, and what each algorithm did for it."""
    steps = ["widths", "fallback", *recipe.algorithms]
    with say.step(f"quantize ({recipe.name})", float(len(steps))) as progress:

        def heard(name: str, share: float) -> None:
            progress(steps.index(name) + share)

        return finish(program, calibration, recipe, samples, heard)
