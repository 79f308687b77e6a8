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

_SAME_ORDER = frozenset(
    {
        aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.flatten.using_ints,
        aten.unflatten.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
        aten.squeeze.default, aten.contiguous.default, aten.clone.default,
    }
)  # fmt: skip
"""Views whose values, in row-major order, are those of their input."""

_MOVES = frozenset({aten.permute.default, aten.transpose.int})


@dataclass(frozen=True)
class NarrowMoves:
    """Rewrite each chain of views and permutations with values of more than five axes.

    Axes that stay neighbours move as one: a window partition [b, y, wy, x, wx, c] →
    [b, y, x, wy, wx, c] is the permutation [b·y, wy, x, wx, c] → [b·y, x, wy, wx, c]. The foremost
    are merged first, so that channels behind stay an axis of their own, as scales need it. Where
    more than five are left, one after the other moves to its place: [a, m, n, z] → [a, n, m, z].

    A chain whose wide values have other readers stays as it is.
    """  # fmt: skip

    name: ClassVar[str] = "narrow_moves"

    def apply(self, module: GraphModule) -> int:
        """Rewrite them all; returns how many chains there were."""
        count = 0
        for node in list(module.graph.nodes):
            chain = _chain(node)
            if chain:
                _rewrite(Writer(module, chain[-1], self.name), chain)
                count += 1
        return count


def _wide(node: Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and getattr(value, "ndim", 0) > MOST


def _chain(first: Node) -> list[Node]:
    """The nodes from one that makes too many axes to the one after which there are few again."""
    source = first.args[0] if first.args else None
    if not _wide(first) or not isinstance(source, Node) or _wide(source):
        return []
    chain = [first]
    while _wide(chain[-1]):
        readers = list(chain[-1].users)
        if chain[-1].target not in _SAME_ORDER | _MOVES or len(readers) != 1:
            return []
        chain.append(readers[0])
    return chain if chain[-1].target in _SAME_ORDER | _MOVES else []


def _rewrite(write: Writer, chain: list[Node]) -> None:
    source: Any = chain[0].args[0]
    at = source
    for node in chain:
        if node.target in _MOVES:
            before: Any = node.args[0]
            at = _permute(write, at, g.shape_of(before), _order(node))
    if g.shape_of(at) != g.shape_of(chain[-1]):
        at = write(aten.reshape.default, at, list(g.shape_of(chain[-1])))
    write.replace(at)


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


def _permute(write: Writer, x: Node, shape: Sequence[int], order: Sequence[int]) -> Node:
    """A permutation of ``x``, seen as ``shape``; the result's own shape is of no account."""
    sizes, wanted = _merged(list(shape), list(order))
    if len(sizes) <= MOST:
        return _turned(write, x, sizes, wanted)
    axes = list(range(len(sizes)))
    for i in range(len(axes)):
        start = axes.index(wanted[i])
        if start == i:
            continue
        end = start
        while end < len(axes) and axes[end] == wanted[i + end - start]:
            end += 1
        parts = axes[:i], axes[i:start], axes[start:end], axes[end:]
        x = _turned(write, x, [math.prod(sizes[a] for a in part) for part in parts], [0, 2, 1, 3])
        axes = [*parts[0], *parts[2], *parts[1], *parts[3]]
    return x


def _turned(write: Writer, x: Node, sizes: list[int], order: list[int]) -> Node:
    if g.shape_of(x) != tuple(sizes):
        x = write(aten.reshape.default, x, sizes)
    return write(aten.permute.default, x, order)


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
