"""Two graphs of the same operators side by side: a whole model, and what pruning left of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.graph import aten
from edgemix.program import Program, Step
from edgemix.quantize.columns import columns, rows
from edgemix.quantize.prune.moments import Fit, Moments, solve
from edgemix.quantize.prune.taught import given, one_step

_AT_ONCE = 32
_HELD_OUT = 8
"""One part in so many is not fitted on."""
_TINY = 1e-3
"""Behind a smaller factor, a layer cannot make up for what a sum lacks."""


class Lockstep:
    """Runs both graphs operator by operator, and stops at each layer to fit its weights.

    A layer is fitted to the whole model's result, given what the pruned model has at this place:
    an error of the layers in front is made up for, not added to. Where the result is added to
    another value, that sum is what is fitted.
    """

    def __init__(
        self,
        whole: Program,
        small: Program,
        samples: Tensor,
        left: Callable[[Node, Tensor], Tensor],
        gone: Collection[str] = (),
    ) -> None:
        """Take both programs, samples [n, ...], and what pruning leaves of a node's value.

        Of programs with states samples are sequences [n, steps, ...], and each step starts from
        the whole one's states. ``gone`` names the nodes of the whole graph that the small one
        lacks.
        """
        self._program = small
        self._gone = gone
        self.whole, _, mapped = batched(one_step(whole))
        self.small = batched(one_step(small))[0]
        self._left = left
        size = whole.inputs[0].shape[0] if mapped else _AT_ONCE
        self._given = self._pieces(whole, small, samples, size)
        self._parts = len(next(iter(self._given.values())))
        self.fitted: dict[str, Tensor] = {}
        self.values: dict[Node, list[Any]] = {}

    def _pieces(
        self, whole: Program, small: Program, samples: Tensor, size: int
    ) -> dict[Node, list[Tensor]]:
        """What both graphs take."""
        old, new = (
            dict(zip((spec.name for spec in p.takes), m.graph.find_nodes(op="placeholder"),
                     strict=True))
            for p, m in ((whole, self.whole), (small, self.small))
        )  # fmt: skip
        found: dict[Node, list[Tensor]] = {}
        for (name, node), values in zip(old.items(), given(whole, samples), strict=True):
            found[node] = list(torch.split(values, size))
            if name in new:
                found[new[name]] = [self._left(node, x) for x in found[node]]
        return found

    def run(
        self, on_step: Callable[[float], None], change: Callable[[Node, Fit], Fit] = lambda _, f: f
    ) -> None:
        """Both graphs to their ends.

        Args:
            on_step: called with the share that is done.
            change: what becomes of the fit of a layer whose weights are its own.
        """
        before, after = (_calls(m) for m in (self.whole, self.small))
        common = [n for n in before if n.name not in self._gone]
        assert [n.target for n in common] == [n.target for n in after]
        twin = dict(zip(common, after, strict=True))
        self.values.update(self._given)
        last = _last_uses(self.whole) | _last_uses(self.small)
        with torch.no_grad():
            for i, old in enumerate(before):
                self._compute(self.whole, old)
                new = twin.get(old)
                if new is not None:
                    if owns_weights(new):
                        self._set(new, change(new, self._fit(new, self._moments(old, new))))
                    self._compute(self.small, new)
                for node in (*last.get(old, ()), *(last.get(new, ()) if new else ())):
                    self.values.pop(node, None)
                on_step((i + 1) / len(before))

    def _value(self, module: GraphModule, node: Node, piece: int) -> Any:
        return g.constant(module, node) if node.op == "get_attr" else self.values[node][piece]

    def _compute(self, module: GraphModule, node: Node) -> None:
        found = []
        for piece in range(self._parts):
            args, kwargs = map_arg(
                (node.args, node.kwargs),
                lambda n: self._value(module, n, piece),  # noqa: B023
            )
            assert callable(node.target)
            found.append(node.target(*args, **kwargs))
        self.values[node] = found

    def _moments(self, old: Node, new: Node) -> tuple[Moments, Moments]:
        terms = _added(old), _added(new)
        moments = (Moments(), Moments())
        for piece in range(self._parts):
            source: Any = new.args[0]
            x = self.values[source][piece]
            y = self._left(old, self.values[old][piece])
            y = y + self._missing(*terms, piece)
            wanted = rows(new, y)
            for some, part in _placed(columns(new, x), wanted):
                moments[piece % _HELD_OUT == _HELD_OUT - 1].add(part, some)
        return moments

    def _fit(self, node: Node, moments: tuple[Moments, Moments]) -> Fit:
        weight: Any = node.args[1]
        groups: Any = node.args[6] if len(node.args) > 6 else 1
        value = g.constant(self.small, weight)
        now = value.reshape(groups, -1, value[0].numel())
        fit = solve(moments, now, centred=_has_bias(node))
        return fit if bool(now.all()) else fit.without(now != 0)

    def _set(self, node: Node, fit: Fit) -> None:
        weight: Any = node.args[1]
        now = g.constant(self.small, weight)
        self._replace(weight, fit.weight.reshape(now.shape).to(now.dtype))
        if _has_bias(node):
            bias: Any = node.args[2]
            self._replace(bias, fit.bias.reshape(-1).to(now.dtype))

    def result(self, *steps: Step) -> Program:
        """The pruned program with the weights that were fitted."""
        module = self._program.module()
        for name, value in self.fitted.items():
            g.set_constant(module, name, value)
        return self._program.with_module(module, *steps)

    def _missing(self, whole: Sum | None, small: Sum | None, piece: int) -> Tensor:
        """What the other term of a sum lacks, as the fitted layer sees it."""
        if whole is None or small is None:
            return torch.zeros(())
        if whole.other not in self.values or small.other not in self.values:
            return torch.zeros(())  # it is computed only after this layer
        lack: Tensor = self._left(whole.other, self.values[whole.other][piece])
        lack = lack - self.values[small.other][piece]
        for node in reversed(small.path):
            lack = self._undone(node, lack)
        return lack

    def _undone(self, node: Node, value: Tensor) -> Tensor:
        if node.target is aten.permute.default:
            order: Any = node.args[1]
            return value.permute([order.index(i) for i in range(len(order))])
        if node.target is aten.transpose.int:
            axes: Any = node.args[1:3]
            return value.transpose(*axes)
        factor: Any = node.args[1]
        scale = g.constant(self.small, factor)
        return value / torch.where(scale.abs() < _TINY, torch.inf, scale)

    def _replace(self, node: Node, value: Tensor) -> None:
        g.set_constant(self.small, str(node.target), value)
        self.fitted[str(node.target)] = value


@dataclass(frozen=True)
class Sum:
    """The sum that a layer's result ends in."""

    other: Node
    """Its other term."""
    path: tuple[Node, ...]
    """The operators between."""


def _added(node: Node) -> Sum | None:
    path: list[Node] = []
    while len(node.users) == 1:
        (reader,) = node.users
        if reader.target is aten.add.Tensor and len(reader.args) == 2:
            other = reader.args[0] if reader.args[1] is node else reader.args[1]
            if not isinstance(other, Node) or other is node or other.op != "call_function":
                return None
            return Sum(other, tuple(path)) if g.shape_of(other) == g.shape_of(node) else None
        scaled = (
            reader.target is aten.mul.Tensor
            and reader.args[0] is node
            and isinstance(reader.args[1], Node)
            and reader.args[1].op == "get_attr"
        )
        if not scaled and reader.target not in (aten.permute.default, aten.transpose.int):
            return None
        path.append(reader)
        node = reader
    return None


def _placed(parts: Iterator[Tensor], wanted: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Wanted rows beside the columns of the same samples."""
    start = 0
    for part in parts:
        yield wanted[start : start + len(part)], part
        start += len(part)


def _calls(module: GraphModule) -> list[Node]:
    return [n for n in module.graph.nodes if n.op == "call_function"]


def owns_weights(node: Node) -> bool:
    """Whether a layer's weights are its own."""
    if node.target not in g.LINEAR:
        return False
    weights: list[Any] = [a for a in node.args[1:3] if isinstance(a, Node)]
    return all(w.op == "get_attr" and not is_shared(w) for w in weights)


def is_shared(weight: Node) -> bool:
    """Whether several operators read a constant, be it by nodes of their own."""
    named = weight.graph.find_nodes(op="get_attr")
    return sum(len(n.users) for n in named if n.target == weight.target) > 1


def _has_bias(node: Node) -> bool:
    return len(node.args) > 2 and node.args[2] is not None


def _last_uses(module: GraphModule) -> dict[Node, list[Node]]:
    """For each node, the values that nobody reads after it."""
    last: dict[Node, Node] = {}
    for node in module.graph.nodes:
        for source in node.all_input_nodes:
            last[source] = node
    found: dict[Node, list[Node]] = {}
    for source, node in last.items():
        found.setdefault(node, []).append(source)
    return found
