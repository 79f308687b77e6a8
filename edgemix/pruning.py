"""From a program to a smaller one: budgets of every kind, and the curve behind the choice."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from edgemix import data, family, files, proof, rewrites, sources, targets
from edgemix import graph as g
from edgemix.batched import outputs
from edgemix.data import Data
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.extras import versions
from edgemix.latency.budget import SIZE
from edgemix.latency.estimator import Device, Estimator
from edgemix.latency.resources import RESOURCES
from edgemix.latency.units import BYTES, MS, duration, storage
from edgemix.order import Listener
from edgemix.program import Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.blocks import drop_branches
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.factor import factorize
from edgemix.quantize.prune.finetune import finetune
from edgemix.quantize.prune.prune import Pruner
from edgemix.quantize.prune.recipe import MACS, PARAMETERS, Goal, Pruning, share
from edgemix.quantize.prune.size import Counted
from edgemix.quantize.prune.sparse import Pattern, sparsify
from edgemix.quantize.prune.tokens import TokenPlan, reduce_tokens
from edgemix.quantize.recipe import Recipe
from edgemix.report import build, schema
from edgemix.report.html import render_pruning
from edgemix.targets.base import Target

SAMPLES = 512
"""Calibration samples that pruning looks at, at most."""
EVALUATED = 1000
_STEPS = 8
"""Halvings of the share in which a figure that has to be asked for is found."""


Members = tuple[tuple[schema.PrunedPoint, Program, Keep], ...]


@dataclass(frozen=True)
class Outcome:
    """A smaller program, and what it came from."""

    program: Program
    result: schema.PruningResult
    pruner: Pruner | None = None
    """None where no widths shrank."""
    members: Members = ()
    """All programs of the widths' curve, from the largest."""


@dataclass(frozen=True)
class Gauge:
    """Who says what a program takes: sizes, times on devices, logic."""

    devices: Mapping[str, Device] = field(default_factory=dict)
    estimator: Estimator | None = None
    fpga: Target | None = None
    """Whose resources are counted."""
    rehearse: Callable[[Program], Program] = lambda program: program
    """What becomes of a program before it is lowered."""
    stored: Callable[[Program], float] = lambda program: 4.0 * program.parameters
    """Bytes of its weights."""
    targets: tuple[str, ...] = ()
    """Whose artifacts are wanted: a device's time is that of the first that it runs."""

    def times(self, program: Program) -> dict[str, float]:
        """Milliseconds on each device, for the first target that it runs."""
        if self.estimator is None or not self.devices:
            return {}
        made = self.rehearse(program)
        return {
            name: self.estimator.estimate(made, device, self._target(device)).latency.p50_ms
            for name, device in self.devices.items()
        }

    def _target(self, device: Device) -> str:
        return next((t for t in self.targets if t in device.targets), device.targets[0])

    def figure(self, goal: Goal, program: Program) -> float:
        """What a goal counts: bytes, milliseconds or parts of an FPGA.

        Raises:
            InputError: nobody here knows it.
        """
        if goal.what == SIZE:
            return self.stored(program)
        if goal.what in self.devices:
            return self.times(program)[goal.what]
        if goal.what in RESOURCES and self.fpga is not None:
            return float(_counted(self.fpga, self.rehearse(program))[goal.what])
        known = [MACS, PARAMETERS, SIZE, *self.devices, *(RESOURCES if self.fpga else ())]
        raise InputError(
            f"nothing here counts {goal.what}",
            do=f"use one of {', '.join(known)}; name devices with --device",
        )

    def limit(self, goal: Goal, whole: float) -> float:
        """A goal in the units of :meth:`figure`.

        Raises:
            InputError: the unit is of another kind.
        """
        units = BYTES if goal.what == SIZE else MS if goal.what in self.devices else None
        if units is None or goal.unit == "%":
            return goal.limit(whole)
        if goal.unit not in units:
            raise InputError(
                f"{goal.amount:g}{goal.unit} is no budget of {goal.what}",
                do=f"give a share, or one of {', '.join(units)}",
            )
        return goal.amount * units[goal.unit]

    def shown(self, goal: Goal, value: float) -> str:
        """A figure for people."""
        if goal.what == SIZE:
            return storage(value)
        return duration(value) if goal.what in self.devices else f"{value:,.0f}"


@dataclass(frozen=True)
class Asked:
    """What ``edgemix prune`` is to do."""

    source: str
    out: Path
    pruning: Pruning
    calibrate: str
    evaluate: str
    samples: int = SAMPLES
    step: bool = False
    devices: tuple[str, ...] = ()
    family: bool = False
    """Write all programs of the curve, each with its share of one calibration."""
    force: bool = False
    command: tuple[str, ...] = ()


def run(asked: Asked, estimator: Estimator, say: Listener) -> schema.PruningReport:
    """Prune a model; the program and its report are written at the end, or nothing is.

    Raises:
        InputError: a source, data or a budget that cannot be used.
    """
    if asked.family and (asked.pruning.budget is None or asked.pruning.before_and_after):
        raise InputError(
            "a family is of widths alone", do="leave out tokens, branches, factors, sparse, epochs"
        )
    files.check_output_folder(asked.out, force=asked.force)
    devices = {name: estimator.device(name) for name in dict.fromkeys(asked.devices)}
    with say.step(f"load {asked.source}"):
        program = rewrites.standard(sources.load(asked.source, step=asked.step))
        if program.quantized:
            raise InputError(
                f"{asked.source} is quantized: its weights cannot be cut any more",
                do="prune the float model, then deploy what comes of it",
            )
        spec, steps = program.inputs[0], bool(program.states)
        calibration = data.load(asked.calibrate, spec, steps=steps, most=asked.samples)
        calibration = calibration.head(min(asked.samples, len(calibration)))
        held_out = data.load(asked.evaluate, spec, steps=steps)
    goal = Goal.parse(asked.pruning.budget or "100%")
    fpga = targets.load("rtl") if goal.what in RESOURCES else None
    few = calibration.batches(spec.shape[0], min(len(calibration), spec.shape[0] * 16))

    def fixed(small: Program) -> Program:
        return quantize(small, calibrate(small, few), Recipe.load("fixed8"))

    gauge = Gauge(devices, estimator, fpga, fixed if fpga is not None else _as_it_is)
    found = pruned(program, asked.pruning, calibration, held_out, gauge, say)
    report = schema.PruningReport(
        edgemix=versions("edgemix")["edgemix"],
        command=shlex.join(asked.command),
        model=build.model(found.program, multiply_accumulates(found.program)),
        pruning=found.result,
    )
    everything = None
    if asked.family:
        with say.step(f"calibrate on {calibration.source}"):
            everything = calibrate(program, calibration.batches(64, len(calibration)))
    with files.whole_folder(asked.out) as out:
        found.program.save(out / "program.edgemix")
        if everything is not None and found.pruner is not None:
            family.write(out, found.pruner, found.members, everything)
        files.write_text(out / "pruning.json", report.model_dump_json(indent=1) + "\n")
        files.write_text(out / "pruning.html", render_pruning(report))
    return report


def _as_it_is(program: Program) -> Program:
    return program


def _counted(target: Target, program: Program) -> dict[str, int]:
    """What a target's design of a program takes of an FPGA."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / target.name
        folder.mkdir()
        program.save(Path(place) / "program.edgemix")
        artifact = target.lower(program, Path(place) / "program.edgemix", folder)
        resources = getattr(target, "resources")(artifact, folder)  # noqa: B009
        used: dict[str, int] = resources.used
        return used


def pruned(
    program: Program,
    pruning: Pruning,
    calibration: Data,
    held_out: Data,
    gauge: Gauge,
    say: Listener,
) -> Outcome:
    """The program within a pruning's budget, and the curve of what else could be had.

    Args:
        program: float, after the standard rewrites.
        pruning: what may go, and for what.
        calibration: samples that units are weighed and weights fitted on.
        held_out: what the curve's accuracy is measured on.
        gauge: who says what programs take.
        say: hears of the progress.

    Raises:
        InputError: a budget that cannot be met, or that nobody here can count.
    """
    few = calibration.head(min(SAMPLES, len(calibration)))
    samples = few.tensor()
    track = _Track(program, held_out, gauge)
    now = program
    if pruning.tokens is not None:
        with say.step(f"let tokens go ({pruning.merging})", 1.0) as done:
            wanted = share(pruning.tokens).amount
            now, plan = reduce_tokens(now, samples, pruning.merging, wanted, done)
            now = rewrites.standard(now)
        track.add(f"{plan.method}, {_tokens(plan)}", now)
    if pruning.branches:
        with say.step("drop branches", 1.0) as done:
            now, gone = drop_branches(now, samples, pruning.branches, done)
        track.add(f"without {', '.join(_module(b.where) for b in gone)}", now)
    pruner: Pruner | None = None
    members: Members = ()
    widths: tuple[schema.Width, ...] = ()
    if pruning.budget is not None:
        with say.step(f"weigh units on {calibration.source}", 1.0) as done:
            pruner = Pruner.of(now, pruning, samples, _labels(few), done)
        now, members, widths = _narrowed(pruner, track, say)
    if pruning.factors is not None:
        goal = share(pruning.factors)
        with say.step("factor layers", 1.0) as done:
            now, _ = factorize(now, samples, goal.amount, goal.counted, on_step=done)
        track.add(f"low rank, {pruning.factors}", now)
    if pruning.sparse is not None:
        with say.step(f"make weights sparse ({pruning.sparse})", 1.0) as done:
            now = sparsify(now, samples, Pattern.parse(pruning.sparse), done)
        track.add(f"sparse, {pruning.sparse}", now)
    if pruning.finetune:
        with say.step(f"train {pruning.finetune} epochs", 1.0) as done:
            given = calibration.tensor(), _labels(calibration)
            now = finetune(program, now, *given, pruning.finetune, done)
        track.add(f"{pruning.finetune} epochs", now)
    blind = () if pruner is None else tuple(str(where) for where in pruner.units.halted)
    result = schema.PruningResult(
        asked=pruning.model_dump(mode="json"),
        calibration=calibration.source,
        samples=len(few),
        evaluation=held_out.source,
        widths=widths,
        points=track.chosen(),
        blind=blind,
    )
    return Outcome(now, result, pruner, members)


def _labels(some: Data) -> Tensor | None:
    return None if some.labels is None else torch.from_numpy(some.labels).long()


def _tokens(plan: TokenPlan) -> str:
    first, last = plan.layers[0].before, plan.layers[-1].after
    return f"{first} to {last} tokens"


def _module(where: g.Where) -> str:
    return where.module or where.node


class _Track:
    """The programs on the way from the whole model, and what each is worth."""

    def __init__(self, whole: Program, held_out: Data, gauge: Gauge) -> None:
        self._x = held_out.head(min(EVALUATED, len(held_out))).tensor()
        self._held_out, self.whole, self.gauge = held_out, whole, gauge
        self._expected = outputs(whole, self._x)
        self.macs, self.parameters = multiply_accumulates(whole), whole.parameters
        self.points = [self._point("whole", whole, self._expected)]

    def add(self, name: str, program: Program) -> schema.PrunedPoint:
        """Measure a program; the last one that is added is the one that was chosen."""
        self.points.append(self._point(name, program, outputs(program, self._x)))
        return self.points[-1]

    def _point(self, name: str, program: Program, found: Tensor) -> schema.PrunedPoint:
        labels = self._held_out.labels
        right = None if labels is None else proof.accuracy(found.numpy(), labels[: len(found)])
        return schema.PrunedPoint(
            asked=name,
            chosen=False,
            macs=multiply_accumulates(program),
            parameters=program.parameters,
            accuracy=right,
            sqnr_db=proof.sqnr_db(self._expected.numpy(), found.numpy()),
            times_ms=self.gauge.times(program),
        )

    def chosen(self) -> tuple[schema.PrunedPoint, ...]:
        """All points, from the largest; of those that are as large the chosen one comes last."""
        whole, *others = self.points
        others[-1:] = [point.model_copy(update={"chosen": True}) for point in others[-1:]]
        return (whole, *sorted(others, key=lambda point: -point.macs))


def _narrowed(
    pruner: Pruner, track: _Track, say: Listener
) -> tuple[Program, Members, tuple[schema.Width, ...]]:
    """Narrower widths: what was asked for, and the curve around it."""
    pruning, gauge = pruner.pruning, track.gauge
    assert pruning.budget is not None
    goal = Goal.parse(pruning.budget)
    counted, limit = _limit(pruner, track, goal, gauge, say)
    own = _asked(goal, pruning.budget)
    limits: dict[str, tuple[Counted, float]] = {
        f"{part:.0%} of MACs": ("macs", part * track.macs)
        for part in pruning.curve
        if part * track.macs < pruner.total("macs") and _at(pruner, part * track.macs) is not None
    }
    limits.pop(own, None)
    limits[own] = (counted, limit)
    members = [(track.points[0], pruner.program, pruner.units.everything())]
    with say.step("prune and fit", float(len(limits))) as done:
        for i, (name, bound) in enumerate(limits.items()):
            keep, made = pruner.within(*bound, lambda part, i=i: done(i + part))  # type: ignore[misc]
            members.append((track.add(name, made), made, keep))
    _, small, keep = members[-1]
    widths = tuple(schema.Width(**asdict(width)) for width in pruner.widths(keep))
    return small, tuple(sorted(members, key=lambda member: -member[0].macs)), widths


def _asked(goal: Goal, budget: str) -> str:
    return f"{goal.amount:.0%} of MACs" if (goal.what, goal.unit) == (MACS, "%") else budget


def _at(pruner: Pruner, macs: float) -> Keep | None:
    """What so many multiply-accumulates leave; None below what can be had."""
    try:
        return pruner.keep("macs", macs)
    except InputError:
        return None


def _limit(
    pruner: Pruner, track: _Track, goal: Goal, gauge: Gauge, say: Listener
) -> tuple[Counted, float]:
    """A goal as a limit; of figures that must be asked for, by halving shares of the MACs."""
    if goal.what in (MACS, PARAMETERS):
        limit = goal.limit(track.macs if goal.what == MACS else track.parameters)
        pruner.keep(goal.counted, limit)
        return goal.counted, limit
    with say.step(f"look for {pruner.pruning.budget}", float(_STEPS)) as done:
        whole = gauge.figure(goal, track.whole)
        limit = gauge.limit(goal, whole)
        if gauge.figure(goal, pruner.program) <= limit:
            return "macs", pruner.total("macs")
        low, high, found = 0.0, 1.0, None
        least = whole
        for step in range(_STEPS):
            middle = (low + high) / 2
            keep = _at(pruner, middle * pruner.total("macs"))
            if keep is None:
                low = middle
            else:
                now = gauge.figure(goal, pruner.cut(keep))
                least = min(least, now)
                low, high = (middle, high) if now <= limit else (low, middle)
                found = middle if now <= limit else found
            done(step + 1.0)
    if found is None:
        raise InputError(
            f"the budget {pruner.pruning.budget} cannot be met: pruning leaves "
            f"{gauge.shown(goal, least)} of {gauge.shown(goal, whole)}",
            do="ask for less, or lower what each width keeps (--least)",
        )
    return "macs", found * pruner.total("macs")
