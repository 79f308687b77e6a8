"""From a recipe and a calibration to a plan: which tensor gets which encoding, as data.

Which activations share one encoding: views and selections with their input; what is joined with
what it is joined to; the operands and the result of an addition where the recipe aligns them; a
state before a step and after it. Which stay unquantized, because they are exact in a wide
accumulator, or because they are places, or decide: see :func:`edgemix.graph.exact_between`,
:func:`edgemix.graph.positions` and :func:`edgemix.graph.deciding`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.observers import TensorStats, choose_range, enough_bits
from edgemix.quantize.params import (
    Range,
    encode,
    encode_channels,
    encode_groups,
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
    constants: Mapping[tuple[str, str], Encoding]
    """(reader, constant): of weights and of other constants; biases follow from these, see
    :mod:`edgemix.quantize.insert`."""
    groups: Mapping[str, str]
    """Of every activation, one that stands for all that share its encoding."""
    rules: Mapping[str, Rule]
    """For the activations that stand for a group, where the encoding is not given by what they
    are (a probability, a spike)."""

    def read(self, reader: Node, source: Node) -> Encoding | None:
        """The encoding in which a node reads a value; None for a real number."""
        return self.narrow.get((reader.name, source.name)) or self.encodings.get(source.name)


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
    recipe.check_exceptions(
        [
            (g.where(n), "input" if n.op == "placeholder" else g.op_name(n))
            for n in module.graph.nodes
            if n.op in ("placeholder", "call_function")
        ]
    )
    groups = _Groups()
    ranges: dict[str, Range] = {}
    rules: dict[str, Rule] = {}
    fixed: dict[str, Encoding] = {}
    places = g.positions(module) | g.deciding(module)
    summed = set(g.integrating(module, states))
    wide = summed | {a for a, b in g.fed_back(module, states) if b in summed} | _added(summed)
    for node in module.graph.nodes:
        if node.op not in ("placeholder", "call_function") or not _is_float(node):
            continue
        if not node.users or g.exact_between(node) or node in places:
            continue
        at = g.where(node)
        rule = recipe.state_rule(at, g.op_name(node)) if node in wide else _rule(node, recipe)
        if rule is None:
            continue
        rules[node.name] = rule
        if node.op == "call_function" and node.target in _SHARES_INPUT:
            groups.join(node.name, node.args[0].name)
        elif (node.target in _PROBABILITY or _is_split_probability(node)) and rule.bits == 8:
            fixed[node.name] = SOFTMAX
        elif g.is_spike(node):
            fixed[node.name] = SPIKE
        elif node.target in _BOUNDED and rule.bits == 8:
            fixed[node.name] = _BOUNDED[node.target]
        elif node.name not in calibration.stats:
            raise InputError(
                "the calibration never reached this node", at=str(at), do="calibrate again"
            )
        else:
            stats = calibration.stats[node.name]
            rules[node.name] = enough_bits(stats, rule)
            ranges[node.name] = choose_range(stats, rules[node.name])
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
    found = groups.encodings(ranges, fixed, rules)
    encodings = {name: encoding for name, encoding in found.items() if name in rules}
    kept = {groups.root(n.name) for n in wide} | {
        n.name for n in module.graph.nodes if n.target in g.DIVISION or g.feeds_division(n)
    }
    by_rule = {name for name in encodings if groups.root(name) in kept or name in kept}
    narrow = dict(_narrow(module, encodings, by_rule, calibration, recipe))
    roots = {name: groups.root(name) for name in encodings}
    free = {
        r: w for r, w in groups.widest(ranges, rules).items() if not _is_one_of(encodings, r, fixed)
    }
    return Plan(encodings, narrow, dict(_constants(module, recipe)), roots, free)


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
    module: GraphModule,
    encodings: Mapping[str, Encoding],
    by_rule: set[str],
    calibration: Calibration,
    recipe: Recipe,
) -> Iterator[tuple[tuple[str, str], Encoding]]:
    """Operands that are rounded to fewer bits before an operator reads them.

    A product reads what the recipe's rule for operands says. Where a state or a divisor has more
    bits than an activation, other operators too read those of an activation: products of more do
    not fit the 24 bits of a float32, in which several runtimes compute, and the table of a scalar
    function has an entry for every value.
    """
    for node in module.graph.nodes:
        if node.op != "call_function" or node.target in _READS_WIDE or not _is_float(node):
            continue
        if g.is_spike(node) or g.is_quantize(node):
            continue
        rule = _rule(node, recipe)
        own = recipe.operand_rule(g.where(node), g.op_name(node))
        rule = own if own is not None and node.target in g.PRODUCT else rule
        if rule is None or rule.sqnr_db is not None:
            continue
        # An exception that makes a value wider is meant for its readers, too.
        wide = [
            n for n in node.all_input_nodes
            if n.name in encodings and encodings[n.name].bits > rule.bits
            and (rule is own or n.name in by_rule)
        ]  # fmt: skip
        if node.target is g.aten.mul.Tensor and len(node.all_input_nodes) == 2:
            wide = wide[1:]  # one factor may have them all
        for source in wide:
            stats = calibration.stats.get(g.reordered(source).name)
            if stats is not None:
                yield (node.name, source.name), encode(choose_range(stats, rule), rule)


def _is_one_of(encodings: Mapping[str, Encoding], root: str, fixed: Mapping[str, Encoding]) -> bool:
    return any(encodings.get(root) is encoding for encoding in fixed.values())


def _constants(module: GraphModule, recipe: Recipe) -> Iterator[tuple[tuple[str, str], Encoding]]:
    """The encodings of weights, and of the constants of arithmetic between quantized values."""
    places = g.positions(module) | g.deciding(module)
    for node in module.graph.nodes:
        if node.op != "call_function" or node in places:
            continue
        rule = recipe.weight_rule(g.where(node), g.op_name(node))
        if rule is None:
            continue
        if node.target in g.LINEAR:
            weight = node.args[1]
            if isinstance(weight, Node) and weight.op == "get_attr":
                yield (node.name, weight.name), encode_weight(g.constant(module, weight), rule)
        elif recipe.activations is not None and node.target in g.ARITHMETIC:
            # Few bits are for the many weights of products; what there are few of keeps eight.
            rule = rule.with_bits(
                max(rule.bits, recipe.activations.bits if rule.sqnr_db is None else 8)
            )
            for source in node.all_input_nodes:
                if source.op == "get_attr" and _is_float(source):
                    yield (node.name, source.name), _per_tensor(g.constant(module, source), rule)


def encode_weight(weight: Tensor, rule: Rule) -> Encoding:
    """The encoding of a weight [out, in, ...] in the rule's granularity."""
    rule = enough_bits(TensorStats.of(weight), rule)
    if rule.granularity == "per_tensor":
        return _per_tensor(weight, rule)
    if rule.granularity == "per_group" and weight.ndim == 2 and weight.shape[1] % rule.group == 0:
        return encode_groups(weight, rule)
    return encode_channels(weight, rule)


def _per_tensor(value: Tensor, rule: Rule) -> Encoding:
    stats = TensorStats.of(value)
    return encode(choose_range(stats, rule), rule, narrow=True)


def _is_float(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def _rule(node: Node, recipe: Recipe) -> Rule | None:
    rule = recipe.activation_rule(g.where(node), g.op_name(node))
    divides = node.target in g.DIVISION or g.feeds_division(node)
    if rule is not None and recipe.divisor_bits is not None and divides:
        return rule.with_bits(recipe.divisor_bits).model_copy(update={"sqnr_db": None})
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

    def widest(self, ranges: Mapping[str, Range], rules: Mapping[str, Rule]) -> dict[str, Rule]:
        """Of every group, the rule with the most bits."""
        found: dict[str, Rule] = {}
        for name in ranges:
            root = self.root(name)
            found[root] = max(rules[name], found.get(root, rules[name]), key=lambda r: r.bits)
        return found

    def encodings(
        self, ranges: Mapping[str, Range], fixed: Mapping[str, Encoding], rules: Mapping[str, Rule]
    ) -> dict[str, Encoding]:
        unions: dict[str, Range] = {}
        widest = self.widest(ranges, rules)
        for name, (lo, hi) in ranges.items():
            a, b = unions.get(self.root(name), (lo, hi))
            unions[self.root(name)] = (min(a, lo), max(b, hi))
        by_root = {root: encode(bounds, widest[root]) for root, bounds in unions.items()}
        for name, encoding in fixed.items():
            lo, hi = unions.get(self.root(name), (0.0, 0.0))
            low, high = encoding.limits
            # Where a view or a state brings other values in, a known range is just a range.
            if low - encoding.lsb <= lo and hi <= high + encoding.lsb:
                by_root[self.root(name)] = encoding
        names = {*ranges, *fixed, *self._parent}
        return {n: by_root[self.root(n)] for n in names if self.root(n) in by_root}
