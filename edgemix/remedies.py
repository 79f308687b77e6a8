"""What would meet a budget that was missed: the gentlest recipe or pruning that does, by estimate.

Sizes are estimated from the programs alone: parameters × bits, and what the artifact holds besides,
which grows with the number of operators. Times on devices come from whoever estimates them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import torch

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.latency.budget import LATENCY, SIZE, Budget, Figures
from edgemix.latency.estimator import Device, Estimator
from edgemix.latency.units import duration, storage
from edgemix.program import Program
from edgemix.quantize.algorithms.mixed import Budget as Widths
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.prune import Pruner
from edgemix.quantize.prune.recipe import Pruning
from edgemix.quantize.recipe import Recipe
from edgemix.targets.base import Target

RECIPES = (
    "float16", "int16x8", "int8", "w8", "mixed", "w4a8", "w4-blocks", "palette4", "palette2",
)  # fmt: skip
"""Those that are tried."""
PRUNED = (0.75, 0.5, 0.35, 0.25)
"""Shares of the multiply-accumulates that are tried."""
HOST = "host"
"""The device that estimators call this machine."""
_FLOAT = 32
_SCALE = 16
"""Bits of the scale that a group of weights shares."""


@dataclass(frozen=True)
class Option:
    """A recipe, and what it is estimated to take: bytes or milliseconds."""

    recipe: str
    value: float


def nearest(options: Iterable[Option], limit: float) -> Option | None:
    """The option that takes most of what is allowed, which changes least; None: there is none."""
    return max((o for o in options if o.value <= limit), key=lambda o: o.value, default=None)


def advice(
    used: Option, others: Iterable[Option], limit: float, show: Callable[[float], str], by: str,
    smaller: Iterable[Option] = (),
) -> str:  # fmt: skip
    """What would meet a limit, in words, or the least that is known.

    Args:
        used: what is too much.
        others: what can be had instead.
        limit: what is allowed.
        show: a value for people.
        by: whose estimates these are.
        smaller: what pruning gives, the gentlest first; asked for where no recipe suffices.
    """
    known = list(others)
    found = nearest(known, limit)
    if found is None:
        known += smaller
        found = nearest(known, limit)
    if found is not None:
        return f"{found.recipe} would meet it: about {show(found.value)} by estimate ({by})"
    floor = min([used, *known], key=lambda o: o.value)
    if floor is used:
        return f"no recipe known is below {used.recipe} ({by}): a smaller model would meet it"
    return (
        f"no recipe known meets it: the least is about {show(floor.value)} with {floor.recipe}, "
        f"by estimate ({by}); a smaller model would"
    )


def weight_bits(recipe: Recipe, target: str) -> float:
    """Bits in which a target stores a weight under a recipe, on the average."""
    rule = recipe.weights
    if rule is None:
        return 16 if target in ("coreml", "coreai") and recipe.floats == "float16" else _FLOAT
    if rule.palette and target not in ("coreml", "coreai"):
        return _FLOAT
    # Core ML packs weights that nothing quantized multiplies; ONNX and TFLite keep whole bytes.
    if target != "coreai" and (target != "coreml" or recipe.activations is not None):
        return 8 if rule.bits <= 8 else 16
    if recipe.budget is not None and (budget := Widths.parse(recipe.budget)).what == "size":
        return max(recipe.widths) * budget.share
    return rule.bits + (_SCALE / rule.group if rule.granularity == "per_group" else 0)


def weight_bytes(program: Program, recipe: Recipe, target: str) -> float:
    """Bytes of a program's parameters: matrices as the recipe says, vectors in float."""
    module = program.shared
    held = {
        str(n.target): g.constant(module, n)
        for n in module.graph.find_nodes(op="get_attr")
        if n.users and not g.holds_graph(module, n)
    }
    matrices = sum(t.numel() for t in held.values() if t.ndim > 1)
    vectors = sum(t.numel() for t in held.values() if t.ndim <= 1)
    return (matrices * weight_bits(recipe, target) + vectors * _FLOAT) / 8


@dataclass(frozen=True)
class Advisor:
    """Knows a deployment, and what other recipes would make of it."""

    program: Program
    """Float, after every rewrite."""
    quantized: Program
    used: Recipe
    calibration: Calibration | None
    """None where the source came quantized: there is no other recipe for it then."""
    targets: Mapping[str, Target]
    figures: Mapping[str, Figures]
    devices: Mapping[str, Device]
    estimator: Estimator | None
    made: dict[str, Program] = field(default_factory=dict)
    """Quantized by other recipes, by their names: each once."""

    def advice(self, budget: Budget, target: str) -> str:
        """What would meet a budget that this target missed."""
        if self.calibration is None:
            return "the model came quantized: a smaller one, or its float original, would meet it"
        if budget.what == SIZE:
            size = self.figures[target].size
            assert size is not None
            used = Option(self.used.name, size)
            sizes = self._sizes(target, size)
            by = "parameters × bits, and the graph"
            return advice(used, sizes, budget.limit, storage, by, self._cut_sizes(target, size))
        if budget.device is not None and self.estimator is not None:
            now = self.figures[target].on.get(budget.device)
            if now is None:
                return f"{budget.device} runs {', '.join(self.devices[budget.device].targets)}"
            used = Option(self.used.name, now.latency.p50_ms)
            device = self.devices[budget.device]
            times = self._times(target, device)
            smaller = self._cut_times(target, device, used.value)
            return advice(used, times, budget.limit, duration, f"for {budget.device}", smaller)
        measured = self.figures[target].latency if budget.what == LATENCY else None
        if measured is not None and self.estimator is not None:
            host = self.estimator.device(HOST)
            if target in host.targets:
                return self._on_host(budget, target, host, measured.p50_ms)
        what = "times on this machine" if budget.what == LATENCY else budget.what.upper()
        return f"nothing estimates {what} of other recipes: `edgemix search` tries them"

    def _sizes(self, target: str, size: float) -> Iterator[Option]:
        rest = max(size - weight_bytes(self.program, self.used, target), 0.0)
        for recipe, program in self._built(target):
            share = _operators(program) / _operators(self.quantized)
            weights = weight_bytes(self.program, recipe, target)
            yield Option(recipe.name, rest * share + weights)

    def _on_host(self, budget: Budget, target: str, host: Device, measured: float) -> str:
        """Estimates for this machine, scaled so that the one for what was measured is right."""
        assert self.estimator is not None
        own = self.estimator.estimate(self.quantized, host, target).latency.p50_ms
        times = (Option(o.recipe, o.value * measured / own) for o in self._times(target, host))
        used = Option(self.used.name, measured)
        by = "scaled from what was measured"
        smaller = self._cut_times(target, host, measured)
        return advice(used, times, budget.limit, duration, by, smaller)

    def _times(self, target: str, device: Device) -> Iterator[Option]:
        assert self.estimator is not None
        for recipe, program in self._built(target):
            if recipe.budget is None:
                found = self.estimator.estimate(program, device, target)
                yield Option(recipe.name, found.latency.p50_ms)

    def _cut_sizes(self, target: str, size: float) -> Iterator[Option]:
        whole = weight_bytes(self.program, self.used, target)
        for name, program in self._cut():
            yield Option(name, size - whole + weight_bytes(program, self.used, target))

    def _cut_times(self, target: str, device: Device, now: float) -> Iterator[Option]:
        """By the share of the float model's time that is left."""
        assert self.estimator is not None
        whole = self.estimator.estimate(self.program, device, target).latency.p50_ms
        for name, program in self._cut():
            left = self.estimator.estimate(program, device, target).latency.p50_ms
            yield Option(name, now * left / whole)

    def _cut(self) -> Iterator[tuple[str, Program]]:
        """The model at shares of its work; which units go matters little for what it takes."""
        spec = self.program.inputs[0]
        none = torch.zeros(0, *spec.shape[1:])
        try:
            pruner = Pruner.of(self.program, Pruning(importance="magnitude", refit=False), none)
        except InputError:  # there is nothing to cut
            return
        for share in PRUNED:
            with suppress(InputError):
                keep = pruner.keep("macs", share * pruner.total("macs"))
                yield f"{self.used.name} with --prune {share:.0%}", pruner.cut(keep)

    def _built(self, target: str) -> Iterator[tuple[Recipe, Program]]:
        """Other recipes that the rewritten program serves as it is, and that the target takes."""
        for name in RECIPES:
            recipe = Recipe.load(name)
            if name == self.used.name or recipe.split != self.used.split:
                continue
            if name not in self.made:
                assert self.calibration is not None
                self.made[name] = quantize(self.program, self.calibration, recipe)
            if not self.targets[target].supports(self.made[name]):
                yield recipe, self.made[name]


def _operators(program: Program) -> int:
    return len([n for n in program.graph.graph.nodes if n.op == "call_function"])
