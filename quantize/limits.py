"""Smallest and largest values of the tensors of a graph, read as seldom as possible."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten

Ends = tuple[Tensor, Tensor]
"""Smallest and largest, of all values or of every channel: float32[channels] each."""

_ROUNDED_ONCE = frozenset(
    {
        aten.relu.default, aten.relu_.default, aten.neg.default,
        aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor,
    }
)  # fmt: skip
"""Monotone functions of one value and numbers. Their results are rounded once, so that they are the
same wherever they are computed: the ends of a result are the results of the ends."""


@dataclass(frozen=True)
class Follower:
    """A value whose ends need not be read: they follow from another's."""

    node: Node
    source: Node
    numbers: dict[Node, Tensor]
    """Constants of one element that the node reads."""

    def ends(self, lows: Tensor, highs: Tensor) -> Ends:
        """The node's ends, from its source's."""
        both = torch.stack([lows, highs])
        args = [both if a is self.source else self.numbers.get(a, a) for a in self.node.args]  # type: ignore[arg-type]
        found: Tensor = self.node.target(*args, **self.node.kwargs)  # type: ignore[operator]
        return found.amin(0), found.amax(0)


def channels(node: Node) -> int | None:
    """The axis of a value whose channels are told apart: what a linear operator sums over."""
    value = node.meta["val"]
    if value.ndim < 2 or not g.feeds_linear(node):
        return None
    axis = g.channel_axis(node)
    return axis if value.shape[axis] > 1 else None


def followers(
    module: GraphModule, nodes: Iterable[Node]
) -> tuple[dict[Node, Follower], dict[Node, int | None]]:
    """Values whose ends follow from others', and the axis along which each value's are needed."""
    axes = {node: channels(node) for node in nodes}
    found = {}
    for node in reversed(axes):
        follower = _follower(module, node)
        if follower is None or follower.source not in axes:
            continue
        own, its = axes[node], axes[follower.source]
        if own is None or its is None or own == its:
            found[node] = follower
            axes[follower.source] = own if its is None else its
    return found, axes


def _follower(module: GraphModule, node: Node) -> Follower | None:
    varying = [n for n in node.all_input_nodes if n.op != "get_attr"]
    numbers = {n: g.constant(module, n) for n in node.all_input_nodes if n.op == "get_attr"}
    if len(varying) != 1 or any(v.numel() != 1 for v in numbers.values()):
        return None
    (source,) = varying
    squares = node.target is aten.pow.Tensor_Scalar and node.args[1] == 2
    if not (squares and source.target in g.CLAMP_AT_ZERO) and node.target not in _ROUNDED_ONCE:
        return None
    divides_by = node.target is aten.div.Tensor and node.args[0] is not source
    if divides_by or list(node.args).count(source) != 1 or g.shape_of(source) != g.shape_of(node):
        return None
    return Follower(node, source, {n: v.reshape(()) for n, v in numbers.items()})


def limits(value: Tensor, axis: int | None) -> Ends:
    """The ends of a tensor, or of every channel along an axis."""
    # As it lies in memory: what is not row-major would be copied, or read in jumps.
    strides = value.stride()
    order = sorted(range(value.ndim), key=lambda d: -strides[d])
    value = value.permute(order)
    if axis is None:
        low, high = torch.aminmax(value)
        return low, high
    axis = order.index(axis)
    low = high = value
    if axis != 0 and value.is_contiguous():
        # The first axis alone: long vectors against each other. Little is left then.
        rows = value.reshape(len(value), -1)
        low, high = (ends.view(1, *value.shape[1:]) for ends in (rows.amin(0), rows.amax(0)))
    others = [d for d in range(value.ndim) if d != axis]
    return low.amin(others), high.amax(others)
