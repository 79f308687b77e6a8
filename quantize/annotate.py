"""From a recipe and a calibration to PT2E annotations: which tensor gets which encoding.

Two steps. :func:`assign` finds the encoding of every activation, as data. :class:`Annotator`, the
``Quantizer`` that torchao's PT2E asks for, writes them onto the graph together with those of
weights and biases.

Which activations share one encoding: views and selections with their input; what is joined with
what it is joined to; the operands and the result of an addition where the recipe aligns them; a
state before a step and after it. Which stay unquantized, because they are exact in a wide
accumulator: see :func:`edgemix.graph.exact_between`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e.observer import ObserverBase
from torchao.quantization.pt2e.quantizer import (
    QuantizationAnnotation,
    QuantizationSpec,
    Quantizer,
)

from edgemix import graph as g
from edgemix.encoding import DTYPES, Encoding
from edgemix.errors import InputError
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.observers import TensorStats, choose_range
from edgemix.quantize.params import (
    Range,
    encode,
    encode_bias,
    encode_channels,
    representable,
)
from edgemix.quantize.recipe import Recipe, Rule

SOFTMAX = Encoding.per_tensor(1 / 256, -128)
"""A probability: [0, 1) in steps of 1/256, as TFLite's kernels demand."""

_BOUNDED = {
    g.aten.sigmoid.default: SOFTMAX,
    g.aten.tanh.default: Encoding.per_tensor(1 / 128, 0),
}
"""Results that fill their bounds, in the encodings that TFLite's kernels demand."""

_SHARES_INPUT = g.VIEW | g.SELECTING
_PROBABILITY = frozenset({g.aten.softmax.int, g.aten._softmax.default})


SPIKE = Encoding.per_tensor(1.0, 0, qmin=0, qmax=1)
"""A comparison as a number: 0 or 1, exactly."""

_READS_WIDE = g.VIEW | g.SELECTING | g.ADDITION | g.CLAMP_AT_ZERO | {g.aten.cat.default}
"""Operators that take more bits than an activation has as they come; a product takes them once."""


@dataclass(frozen=True)
class Plan:
    """Which tensor gets which encoding."""

    encodings: Mapping[str, Encoding]
    """Of every activation that is quantized, by node name."""
    narrow: Mapping[tuple[str, str], Encoding]
    """(reader, source): in fewer bits than the source has, where a reader takes no more."""


def assign(module: GraphModule, calibration: Calibration, recipe: Recipe, states: int = 0) -> Plan:
    """The encodings of activations and states.

    Args:
        module: the float graph.
        calibration: what its tensors look like.
        recipe: how they are quantized.
        states: how many of the last arguments and results are states. A state has the same
            encoding before and after a step; all that is added up on the way from one to the
            other shares it, in the bits of the recipe's rule for states.

    Raises:
        InputError: a node of the graph was never reached by the calibration data.
    """
    groups = _Groups()
    ranges: dict[str, Range] = {}
    rules: dict[str, Rule] = {}
    fixed: dict[str, Encoding] = {}
    summed = set(g.integrating(module, states))
    wide = summed | {a for a, b in g.fed_back(module, states) if b in summed} | _added(summed)
    for node in module.graph.nodes:
        if node.op not in ("placeholder", "call_function") or not _is_float(node):
            continue
        if not node.users or g.exact_between(node):
            continue
        at = g.where(node)
        rules[node.name] = recipe.state_rule(at) if node in wide else _rule(node, recipe)
        if node.op == "call_function" and node.target in _SHARES_INPUT:
            groups.join(node.name, node.args[0].name)
        elif node.target in _PROBABILITY or _is_split_probability(node):
            fixed[node.name] = SOFTMAX
        elif g.is_spike(node):
            fixed[node.name] = SPIKE
        elif node.target in _BOUNDED and rules[node.name].bits == 8:
            fixed[node.name] = _BOUNDED[node.target]
        elif node.name not in calibration.stats:
            raise InputError(
                "the calibration never reached this node", at=str(at), do="calibrate again"
            )
        else:
            ranges[node.name] = choose_range(calibration.stats[node.name], rules[node.name])
    for before, after in g.fed_back(module, states):
        groups.join(before.name, after.name)
    for node in module.graph.find_nodes(op="call_function", target=g.aten.cat.default):
        _join_parts(node, groups, fixed, wide)
    exact = {groups.root(name) for name in fixed}
    for node in summed:
        if node.target in g.ADDITION and not g.exact_between(node):
            for operand in _operands(node):
                if groups.root(operand.name) not in exact:
                    groups.join(node.name, operand.name)
    if recipe.align_additions > 1.0:
        _align_additions(module, groups, ranges, recipe.align_additions)
    encodings = groups.encodings(ranges, fixed, rules)
    return Plan(encodings, dict(_narrow(module, encodings, calibration, recipe)))


def _join_parts(
    node: Node, groups: _Groups, fixed: Mapping[str, Encoding], wide: set[Node]
) -> None:
    """One encoding for what is put side by side, unless it is of different kinds."""
    whole = groups.root(node.name)
    exact = {groups.root(name): encoding for name, encoding in fixed.items()}
    # A delay line is put together from itself and what comes in: that decides.
    parts: Any = node.args[0]
    entering: list[Node] = [n for n in parts if groups.root(n.name) != whole]
    kinds = {(exact.get(groups.root(n.name)), n in wide) for n in entering}
    if len(kinds) == 1:
        for source in entering:
            groups.join(node.name, source.name)


def _operands(node: Node) -> list[Node]:
    return [n for n in node.args[:2] if isinstance(n, Node) and n.op != "get_attr"]


def _added(summed: set[Node]) -> set[Node]:
    """What is added to a state: a sum is as fine as its coarsest operand."""
    return {n for node in summed if node.target in g.ADDITION for n in _operands(node)}


def _narrow(
    module: GraphModule, encodings: Mapping[str, Encoding], calibration: Calibration, recipe: Recipe
) -> Iterator[tuple[tuple[str, str], Encoding]]:
    """Operands that are rounded to an activation's bits before an operator reads them.

    Products of more bits do not fit the 24 of a float32, in which several runtimes compute, and
    the table of a scalar function has an entry for every value.
    """
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target in _READS_WIDE or not _is_float(node):
            continue
        if g.is_spike(node) or g.is_quantize(node):
            continue
        rule = _rule(node, recipe)
        wide = [
            n for n in node.all_input_nodes
            if n.name in encodings and encodings[n.name].bits > rule.bits
        ]  # fmt: skip
        if node.target is g.aten.mul.Tensor and len(node.all_input_nodes) == 2:
            wide = wide[1:]  # one factor may have them all
        for source in wide:
            if source.name in calibration.stats:
                bounds = choose_range(calibration.stats[source.name], rule)
                yield (node.name, source.name), encode(bounds, rule)


class Annotator(Quantizer):  # type: ignore[misc]
    """PT2E's view of a recipe: every float operator's result, weight and bias gets a spec."""

    def __init__(self, plan: Plan, recipe: Recipe) -> None:
        self._encodings = plan.encodings
        self._narrow = plan.narrow
        self._recipe = recipe

    def annotate(self, model: GraphModule) -> GraphModule:  # noqa: D102
        for node in model.graph.nodes:
            if node.op not in ("placeholder", "call_function"):
                continue
            own = self._encodings.get(node.name)
            read = self._constants(model, node) if node.op == "call_function" else {}
            for source in node.all_input_nodes:
                if (node.name, source.name) in self._narrow:
                    read[source] = self._narrow[node.name, source.name]
            if own is None and not read:
                continue
            node.meta["quantization_annotation"] = QuantizationAnnotation(
                input_qspec_map={n: _spec(e) for n, e in read.items()},
                output_qspec=None if own is None else _spec(own),
                _annotated=True,
            )
        return model

    def validate(self, model: GraphModule) -> None:  # noqa: D102
        return

    def _constants(self, module: GraphModule, node: Node) -> dict[Node, Encoding]:
        """Encodings of the constants that a node reads."""
        found: dict[Node, Encoding] = {}
        rule = self._recipe.weight_rule(g.where(node))
        if node.target in g.LINEAR:
            x, weight = node.args[0], node.args[1]
            if not isinstance(x, Node) or not isinstance(weight, Node) or weight.op != "get_attr":
                return found
            found[weight] = _weight(g.constant(module, weight), rule)
            bias = node.args[2] if len(node.args) > 2 else None
            activation = self._narrow.get((node.name, x.name), self._encodings.get(x.name))
            if isinstance(bias, Node) and activation is not None:
                found[bias] = encode_bias(activation, found[weight])
            return found
        if not _is_float(node):  # a threshold is compared with, not computed with
            return found
        for source in node.all_input_nodes:
            if source.op == "get_attr":
                value = g.constant(module, source)
                if value.is_floating_point():
                    found[source] = _per_tensor(value, rule)
        return found


def _weight(weight: Tensor, rule: Rule) -> Encoding:
    if rule.granularity == "per_channel":
        return encode_channels(weight, rule)
    return _per_tensor(weight, rule)


def _per_tensor(value: Tensor, rule: Rule) -> Encoding:
    return encode(choose_range(TensorStats.of(value), rule), rule, narrow=True)


class Given(ObserverBase):  # type: ignore[misc]
    """An observer that observes nothing: PT2E asks it for the encoding that it was given."""

    def __init__(self, encoding: Encoding, **_: Any) -> None:
        super().__init__(dtype=DTYPES[encoding.dtype], is_dynamic=False)
        self.encoding = encoding
        self.quant_min, self.quant_max = encoding.qmin, encoding.qmax
        self.ch_axis = encoding.axis
        self.qscheme = _scheme(encoding)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x

    def calculate_qparams(self) -> tuple[Tensor, Tensor]:  # noqa: D102
        return (
            torch.tensor(self.encoding.scale, dtype=torch.float32),
            torch.tensor(self.encoding.zero_point, dtype=torch.int64),
        )


def _spec(encoding: Encoding) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=DTYPES[encoding.dtype],
        observer_or_fake_quant_ctr=Given.with_args(encoding=encoding),
        quant_min=encoding.qmin,
        quant_max=encoding.qmax,
        qscheme=_scheme(encoding),
        ch_axis=encoding.axis,
    )


def _scheme(encoding: Encoding) -> torch.qscheme:
    return torch.per_tensor_affine if encoding.axis is None else torch.per_channel_affine


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _rule(node: Node, recipe: Recipe) -> Rule:
    rule = recipe.activation_rule(g.where(node))
    divides = node.target in g.DIVISION or g.feeds_division(node)
    if recipe.divisor_bits is not None and divides:
        return rule.model_copy(update={"bits": recipe.divisor_bits})
    return rule


def _is_split_probability(node: Node) -> bool:
    """Whether a node is a split softmax's result, or the exponentials that it normalizes."""
    if node.target is g.aten.exp.default:
        return any(g.normalized(reader) is node for reader in node.users)
    return g.is_normalization(node)


def _align_additions(
    module: GraphModule, groups: _Groups, ranges: Mapping[str, Range], limit: float
) -> None:
    for node in module.graph.nodes:
        if node.target not in g.ADDITION or g.exact_between(node):
            continue
        members = [
            n.name for n in (*node.args[:2], node) if isinstance(n, Node) and n.op != "get_attr"
        ]
        spans = [groups.span(name, ranges) for name in members]
        if any(s is None or s == 0.0 for s in spans):
            continue
        wide = max(s for s in spans if s is not None)
        near = [
            m for m, s in zip(members, spans, strict=True) if s is not None and wide / s <= limit
        ]
        for member in near[1:]:
            groups.join(member, near[0])


class _Groups:
    """Union-find over node names: the members of a group share one encoding."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, name: str) -> str:
        while (parent := self._parent.setdefault(name, name)) != name:
            name = parent
        return name

    def join(self, a: str, b: str) -> None:
        self._parent[self.root(a)] = self.root(b)

    def span(self, name: str, ranges: Mapping[str, Range]) -> float | None:
        """Largest magnitude in a member's group, None where no range is known."""
        root = self.root(name)
        peaks = [max(-lo, hi) for n, (lo, hi) in ranges.items() if self.root(n) == root]
        return max(peaks) if peaks else None

    def encodings(
        self, ranges: Mapping[str, Range], fixed: Mapping[str, Encoding], rules: Mapping[str, Rule]
    ) -> dict[str, Encoding]:
        unions: dict[str, Range] = {}
        widest: dict[str, Rule] = {}
        for name, (lo, hi) in ranges.items():
            a, b = unions.get(self.root(name), (lo, hi))
            unions[self.root(name)] = (min(a, lo), max(b, hi))
            widest[self.root(name)] = max(
                rules[name], widest.get(self.root(name), rules[name]), key=lambda r: r.bits
            )
        by_root = {root: encode(bounds, widest[root]) for root, bounds in unions.items()}
        for name, encoding in fixed.items():
            lo, hi = unions.get(self.root(name), (0.0, 0.0))
            low, high = representable(encoding)
            # Where a view or a state brings other values in, a known range is just a range.
            if low - encoding.lsb <= lo and hi <= high + encoding.lsb:
                by_root[self.root(name)] = encoding
        names = {*ranges, *fixed, *self._parent}
        return {n: by_root[self.root(n)] for n in names if self.root(n) in by_root}
