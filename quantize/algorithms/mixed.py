"""Mixed precision: the widths of layers that fit a budget and move the output least.

Two steps. Every layer's weights and operands are rounded alone to every width that may be chosen,
and the output's error is measured. Errors of different layers add up, nearly, so that the choice
is a multiple-choice knapsack, which an exact solver takes: HiGHS, through scipy.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.extras import need
from edgemix.quantize.draft import Draft
from edgemix.quantize.observers import choose_range
from edgemix.quantize.params import encode
from edgemix.quantize.plan import encode_weight
from edgemix.quantize.recipe import LayerException, Recipe, Rule
from edgemix.quantize.simulate import RoundedConstant, Rounding, Simulation

SAMPLES = 48
Resource = Literal["size", "latency", "lut"]
_BUDGET = re.compile(r"(?P<what>size|latency|lut)=(?P<share>\d+(?:\.\d+)?)%")


@dataclass(frozen=True)
class Budget:
    """What the layers may cost together."""

    what: Resource
    """``size``: bits of weights. ``latency``: products, each as long as its wider operand.
    ``lut``: products, each of the area of its operands' widths. All are estimates that rank
    choices; the artifact's own figures come from its target."""
    share: float
    """Of what they cost in the widest choice, above 0, at most 1."""

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``size=50%``, ``latency=70%``, ``lut=60%``.

        Raises:
            InputError: it is something else, or no share.
        """
        found = _BUDGET.fullmatch(text.replace(" ", ""))
        share = float(found["share"]) / 100 if found else 0.0
        if found is None or not 0 < share <= 1:
            raise InputError(
                f"{text!r} is no budget for widths", do="write size=50%, latency=70% or lut=60%"
            )
        return cls(found["what"], share)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Option:
    """One layer in one choice of widths."""

    weights: int
    operands: int | None
    """None: as they come."""
    error: float
    """Squared, of the output, relative to its signal."""
    cost: float


@dataclass(frozen=True)
class Layer:
    """A layer with its options; the first is the widest."""

    node: str
    options: tuple[Option, ...]


def choose_widths(
    draft: Draft, samples: Tensor, budget: Budget, widths: tuple[int, ...],
    on_step: Callable[[float], None] = lambda _: None,
) -> Recipe:  # fmt: skip
    """The draft's recipe with an exception for every layer that is not of the widest width.

    Args:
        draft: with the recipe whose other fields stay.
        samples: inputs [n, ...]; the first 48 are used.
        budget: what the layers may cost.
        widths: bits to choose from.
        on_step: called with the share that is done.

    Raises:
        InputError: no choice fits the budget.
    """
    found = list(sensitivities(draft, samples, budget.what, widths, on_step))
    chosen = solve(found, budget.share * sum(layer.options[0].cost for layer in found))
    exceptions = tuple(
        LayerException(match=layer.node, weights=option.weights, operands=option.operands)
        for layer, option in zip(found, chosen, strict=True)
    )
    return draft.recipe.model_copy(update={"exceptions": (*exceptions, *draft.recipe.exceptions)})


def sensitivities(
    draft: Draft, samples: Tensor, what: Resource, widths: tuple[int, ...],
    on_step: Callable[[float], None] = lambda _: None,
) -> Iterator[Layer]:  # fmt: skip
    """Every layer's options, with the error that each alone makes in the output."""
    simulation = draft.simulate()
    x = samples[:SAMPLES]
    with simulation.only():
        expected = simulation.run(x)
    signal = float(expected.double().square().sum()) or 1.0
    module = draft.program.shared
    nodes = {n.name: n for n in module.graph.nodes}
    layers = [e for e in draft.plan.constants if nodes[e[0]].target in g.LINEAR]

    def error(rounding: Rounding | RoundedConstant) -> float:
        with simulation.only(lambda r: r is rounding):
            return float((simulation.run(x) - expected).double().square().sum()) / signal

    for i, edge in enumerate(layers):
        node = nodes[edge[0]]
        of_weights = dict(_weight_errors(draft, simulation, node, edge, widths, error))
        of_values: dict[int | None, float] = {None: 0.0}
        if what != "size":
            of_values = dict(_value_errors(draft, simulation, node, widths, error))
        options = [
            Option(w, a, e + f, _cost(what, node, w, a))
            for w, e in of_weights.items()
            for a, f in of_values.items()
        ]
        options.sort(key=lambda o: -o.cost)
        yield Layer(node.name, tuple(options))
        on_step((i + 1) / len(layers))


def _weight_errors(
    draft: Draft, simulation: Simulation, node: Node, edge: tuple[str, str],
    widths: tuple[int, ...], error: Callable[[RoundedConstant], float],
) -> Iterator[tuple[int, float]]:  # fmt: skip
    rule = draft.recipe.weight_rule(g.where(node), g.op_name(node))
    constant = simulation.constants[edge]
    before = constant.encoding, constant.value
    assert rule is not None
    for bits in sorted(widths, reverse=True):
        constant.set(constant.real, encode_weight(constant.real, rule.with_bits(bits)))
        yield bits, error(constant)
    constant.set(before[1], before[0])


def _value_errors(
    draft: Draft, simulation: Simulation, node: Node, widths: tuple[int, ...],
    error: Callable[[Rounding], float],
) -> Iterator[tuple[int, float]]:  # fmt: skip
    """The error of a layer's input in every width; it stands for the layer's operand."""
    at, op = g.where(node), g.op_name(node)
    rule = draft.recipe.operand_rule(at, op) or draft.recipe.activation_rule(at, op)
    source = node.args[0]
    assert isinstance(source, Node) and rule is not None
    rounding = simulation.narrow.get((node.name, source.name)) or simulation.values[source.name]
    before = rounding.encoding
    for bits in sorted(widths, reverse=True):
        rounding.encoding = _encoded(draft, source, rule.with_bits(bits))
        yield bits, error(rounding)
    rounding.encoding = before


def _encoded(draft: Draft, source: Node, rule: Rule) -> Encoding:
    rule = rule.model_copy(update={"observer": "mse"})
    return encode(choose_range(draft.calibration.stats[g.reordered(source).name], rule), rule)


def _cost(what: Resource, node: Node, weights: int, operands: int | None) -> float:
    weight = node.args[1]
    assert isinstance(weight, Node)
    count = float(np.prod(g.shape_of(weight)))
    if what == "size":
        return count * weights
    products = count * float(np.prod(g.shape_of(node))) / g.shape_of(weight)[0]
    assert operands is not None
    return products * (weights * operands if what == "lut" else max(weights, operands))


def solve(layers: list[Layer], limit: float) -> list[Option]:
    """One option for every layer: the least error of all choices that cost no more than ``limit``.

    Raises:
        InputError: not even the cheapest choice fits.
    """
    optimize = need("scipy.optimize", extra="mixed")
    options = [(i, o) for i, layer in enumerate(layers) for o in layer.options]
    cheapest = sum(min(o.cost for o in layer.options) for layer in layers)
    if cheapest > limit:
        widest = sum(layer.options[0].cost for layer in layers)
        raise InputError(
            f"no choice of widths fits the budget: the cheapest takes {cheapest / widest:.1%}",
            do="raise the budget, or allow smaller widths",
        )
    scale = max(max(o.error for _, o in options), 1e-30)
    cost = np.array([o.cost for _, o in options]) / limit
    one = np.zeros((len(layers), len(options)))
    for k, (i, _) in enumerate(options):
        one[i, k] = 1.0
    found = optimize.milp(
        np.array([o.error / scale for _, o in options]),
        constraints=[
            optimize.LinearConstraint(one, 1.0, 1.0),
            optimize.LinearConstraint(cost[None], -np.inf, 1.0),
        ],
        integrality=np.ones(len(options)),
        bounds=optimize.Bounds(0.0, 1.0),
    )
    if found.x is None:
        raise InputError(f"the solver found no choice of widths: {found.message}")
    return [o for (_, o), x in zip(options, found.x, strict=True) if x > 0.5]


def widen(
    draft: Draft, samples: Tensor, target_db: float, how: Literal["wide", "float"],
    on_step: Callable[[float], None] = lambda _: None,
) -> Recipe:  # fmt: skip
    """The draft's recipe with exceptions for the fewest values that keep the output's SQNR.

    Every value is rounded alone; the worst are taken out, one after the other, until what is left
    adds up to no more than the target allows.

    Args:
        draft: any.
        samples: inputs [n, ...]; the first 48 are used.
        target_db: SQNR of the outputs that is wanted.
        how: in sixteen bits, or in float.
        on_step: called with the share that is done.
    """
    simulation = draft.simulate()
    x = samples[:SAMPLES]
    with simulation.only():
        expected = simulation.run(x)
    signal = float(expected.double().square().sum()) or 1.0
    groups: dict[str, list[str]] = {}
    for name, root in draft.plan.groups.items():
        groups.setdefault(root, []).append(name)
    errors: dict[str, float] = {}
    for i, (root, names) in enumerate(groups.items()):
        members = {simulation.values[name] for name in names}
        with simulation.only(lambda r: r in members):  # noqa: B023
            found = float((simulation.run(x) - expected).double().square().sum()) / signal
        errors[root] = found
        on_step((i + 1) / len(groups))
    with simulation.only(lambda r: isinstance(r, RoundedConstant)):
        of_weights = float((simulation.run(x) - expected).double().square().sum()) / signal
    allowed = 10 ** (-target_db / 10)
    left = sum(errors.values()) + of_weights
    exceptions: list[LayerException] = []
    for root in sorted(errors, key=lambda r: -errors[r]):
        if left <= allowed:
            break
        left -= errors[root]
        for name in groups[root]:
            given: dict[str, bool | int] = (
                {"leave_float": True} if how == "float" else {"activations": 16}
            )
            exceptions.append(LayerException(match=name, **given))  # type: ignore[arg-type]
    return draft.recipe.model_copy(update={"exceptions": (*draft.recipe.exceptions, *exceptions)})
