"""Views and permutations of more than five axes → the same by at most five."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

MOST = 5
"""Axes that Core ML's tensors have; other runtimes' fast kernels for permutations end there too."""

_MOVES = frozenset({aten.permute.default, aten.transpose.int})
_PICKS = frozenset({aten.select.int, aten.slice.Tensor})
_REDUCES = frozenset({aten.amax.default, aten.mean.dim, aten.sum.dim_IntList})
"""These and picks do one thing to one axis, wherever the others are."""
_BY_ROWS = frozenset({aten.linear.default})
"""What treats all rows alike, the last axis being one row."""
_KNOWN = g.SAME_ORDER | _MOVES | _PICKS | _REDUCES | _BY_ROWS


@dataclass(frozen=True)
class NarrowMoves:
    """Rewrite what is only moved, picked from, summed along an axis or mixed by rows.

    Axes that stay neighbours move as one: a window partition [b, y, wy, x, wx, c] →
    [b, y, x, wy, wx, c] is the permutation [b·y, wy, x, wx, c] → [b·y, x, wy, wx, c]. The foremost
    are merged first, so that channels behind stay an axis of their own, as scales need it. Where
    more than five are left, one after the other moves to its place: [a, m, n, z] → [a, n, m, z].

    Where something else reads one of the values, all stay as they are.
    """

    name: ClassVar[str] = "narrow_moves"

    def apply(self, module: GraphModule) -> int:
        """Rewrite them all; returns how many values of few axes were given many."""
        count = 0
        for node in list(module.graph.nodes):
            if _is_wide(node) and not any(map(_is_wide, node.all_input_nodes)):
                found = _from(node)
                _rewrite(module, found, self.name)
                count += bool(found)
        return count


@dataclass(frozen=True)
class _Held:
    """A value of many axes, by a node with the same numbers in another order."""

    node: Node
    shape: tuple[int, ...]
    """The axes as which the node's numbers lie one behind the other."""
    order: tuple[int, ...]
    """For each axis of the value, which of them it is."""


def _is_wide(node: Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and getattr(value, "ndim", 0) > MOST


def _from(first: Node) -> list[Node]:
    """All that is computed from one wide value up to where axes are few again, in order.

    Empty if something unknown is among it.
    """
    found = {first: None}
    for node in found.copy():
        waiting = [node]
        while waiting:
            for reader in waiting.pop().users:
                if reader not in found:
                    found[reader] = None
                    waiting += [reader] if _is_wide(reader) else []
    sources = {*found, first.args[0]}
    if not all(_is_known(n) and n.args[0] in sources for n in found):
        return []
    return [n for n in first.graph.nodes if n in found]


def _is_known(node: Node) -> bool:
    return node.target in g.SAME_ORDER or (node.target in _KNOWN and not node.kwargs)


def _rewrite(module: GraphModule, nodes: list[Node], name: str) -> None:
    held: dict[Node, _Held] = {}
    for node in nodes:
        write = Writer(module, node, name)
        source: Any = node.args[0]
        shape = g.shape_of(source)
        value = held.get(source) or _Held(source, shape, tuple(range(len(shape))))
        held[node] = _after(write, value)
        if not _is_wide(node):
            write.replace(_seen(write, _laid_out(write, held[node]), g.shape_of(node)))


def _after(write: Writer, value: _Held) -> _Held:
    """What the writer's node makes of a value."""
    node = write.at
    if node.target in _MOVES:
        return _Held(value.node, value.shape, tuple(value.order[a] for a in _order(node)))
    if node.target in _PICKS | _REDUCES:
        return _along_one(write, value)
    shape = g.shape_of(node)
    laid = _laid_out(write, value)
    if node.target in _BY_ROWS:
        rows = _seen(write, laid, (math.prod(shape[:-1]), value.shape[value.order[-1]]))
        laid = write(node.target, rows, *node.args[1:])
    return _Held(laid, shape, tuple(range(len(shape))))


def _along_one(write: Writer, value: _Held) -> _Held:
    node = write.at
    wanted: Any = node.args[1] if len(node.args) > 1 else 0
    places = wanted if isinstance(wanted, (list, tuple)) else [wanted]
    for place in sorted((p % len(value.order) for p in places), reverse=True):
        axis, rest = value.order[place], list(node.args[2:])
        front, back = value.shape[:axis], value.shape[axis + 1 :]
        middle = _seen(write, value.node, (math.prod(front), value.shape[axis], math.prod(back)))
        at = [1] if node.target in _REDUCES else 1
        made = write(node.target, middle, at, *rest)
        order = value.order
        if len(g.shape_of(made)) == 3:
            front = (*front, g.shape_of(made)[1])
        else:
            order = tuple(a - (a > axis) for a in order if a != axis)
        value = _Held(made, (*front, *back), order)
    return value


def _order(node: Node) -> list[int]:
    """For each axis of the result, the axis of the input that it is."""
    ndim = len(g.shape_of(node))
    given: Any = node.args[1]
    if node.target is aten.permute.default:
        return [int(axis) % ndim for axis in given]
    order = list(range(ndim))
    a, b = int(given) % ndim, int(node.args[2]) % ndim  # type: ignore[arg-type]
    order[a], order[b] = order[b], order[a]
    return order


def _laid_out(write: Writer, value: _Held) -> Node:
    """A node whose numbers lie in the value's own order; its shape is of no account."""
    sizes, order = _merged(list(value.shape), list(value.order))
    x = value.node
    if len(sizes) <= MOST:
        return _turned(write, x, sizes, order)
    axes = list(range(len(sizes)))
    for i in range(len(axes)):
        start = axes.index(order[i])
        if start == i:
            continue
        end = start
        while end < len(axes) and axes[end] == order[i + end - start]:
            end += 1
        parts = axes[:i], axes[i:start], axes[start:end], axes[end:]
        x = _turned(write, x, [math.prod(sizes[a] for a in part) for part in parts], [0, 2, 1, 3])
        axes = [*parts[0], *parts[2], *parts[1], *parts[3]]
    return x


def _merged(sizes: list[int], order: list[int]) -> tuple[list[int], list[int]]:
    """The same permutation of fewer axes, as long as there are too many."""
    while len(sizes) > MOST:
        if 1 not in sizes:
            behind = [b for a, b in pairwise(order) if b == a + 1]
            if not behind:
                break
            sizes[min(behind)] *= sizes[min(behind) - 1]
            sizes[min(behind) - 1] = 1
        gone = sizes.index(1)
        del sizes[gone]
        order = [axis - (axis > gone) for axis in order if axis != gone]
    return sizes, order


def _turned(write: Writer, x: Node, sizes: list[int], order: list[int]) -> Node:
    if order == sorted(order):
        return x
    return write(aten.permute.default, _seen(write, x, sizes), order)


def _seen(write: Writer, x: Node, shape: Sequence[int]) -> Node:
    same = g.shape_of(x) == tuple(shape)
    return x if same else write(aten.reshape.default, x, list(shape))
