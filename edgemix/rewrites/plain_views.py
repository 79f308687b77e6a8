"""Views by other names → permute, reshape, expand, slice; copies of a value → the value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import drawn
from edgemix.rewrites.writer import Writer

_PERMUTING = frozenset(
    {
        aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist,
        aten.swapaxes.default, aten.swapdims.default, aten.mT.default, aten.numpy_T.default,
    }
)  # fmt: skip
_RESHAPING = frozenset({aten.view_as.default, aten.reshape_as.default, aten.ravel.default})
_EXPANDING = frozenset({aten.expand_as.default, aten.broadcast_to.default})

_DROPPING = frozenset(
    {
        aten.alpha_dropout.default, aten.dropout.default, aten.feature_alpha_dropout.default,
        aten.feature_dropout.default,
    }
)  # fmt: skip
_COPYING = _DROPPING | {
    aten.alias.default, aten.clone.default, aten.contiguous.default, aten.detach.default,
    aten.lift_fresh_copy.default, aten.positive.default, aten.real.default,
    aten.resolve_conj.default, aten.resolve_neg.default, aten._to_copy.default,
    aten.expand_as.default, aten.view_as.default, aten.reshape_as.default,
}  # fmt: skip
"""Operators whose result is their argument where shape and type are."""


_ANY_ORDER = dict.fromkeys((aten.view.default, aten._unsafe_view.default), aten.reshape.default)


@dataclass(frozen=True)
class PlainViews:
    """``movedim(x, 1, -1)`` → ``permute(x, …)``; ``x.clone().detach()`` → x.

    What asks for views knows a handful of them (:data:`edgemix.graph.VIEW`), and a quantizer gives
    any other operator a range of its own. Memory is no matter any more: in-place operators are
    gone. A copy of an input that the program gives stays, since no output may be an input.
    """

    name: ClassVar[str] = "plain_views"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were.

        Raises:
            UnsupportedError: a dropout that is on, whose results are drawn.
        """
        count = 0
        for node in list(module.graph.nodes):
            plain = _plain(Writer(module, node, self.name))
            if plain is not None:
                count += 1
                node.replace_all_uses_with(plain, propagate_meta=False)
                module.graph.erase_node(node)
        if count:
            # A view of what a copy had put in order is none of what was copied.
            for node in module.graph.nodes:
                node.target = _ANY_ORDER.get(node.target, node.target)
        return count


def _plain(write: Writer) -> Node | None:
    node = write.at
    if node.op != "call_function":
        return None
    source: Any = node.args[0] if node.args else None
    if node.target in _DROPPING and node.args[1] and node.args[2]:
        raise drawn(node)
    if node.target in _COPYING and _is_same(node, source):
        return None if _given_twice(node, source) else source
    for targets, rename in _NAMES:
        if node.target in targets:
            return rename(write, source)
    return None


def _is_same(node: Node, source: Node) -> bool:
    new, old = node.meta["val"], source.meta["val"]
    return bool(new.shape == old.shape and new.dtype == old.dtype)


def _given_twice(node: Node, source: Node) -> bool:
    """Whether a copy is an output beside what it copies, or beside an input or a constant."""
    if not any(user.op == "output" for user in node.users):
        return False
    return source.op != "call_function" or any(user.op == "output" for user in source.users)


def _permuted(write: Writer, source: Node) -> Node:
    # On a value with axes of different lengths the operator itself tells where they go.
    axes = torch.empty(tuple(range(1, source.meta["val"].ndim + 1)), device="meta")
    assert callable(write.at.target)
    order = [n - 1 for n in write.at.target(axes, *write.at.args[1:]).shape]
    return write(aten.permute.default, source, order)


def _reshaped(write: Writer, source: Node) -> Node:
    return write(aten.reshape.default, source, list(g.shape_of(write.at)))


def _expanded(write: Writer, source: Node) -> Node:
    return write(aten.expand.default, source, list(g.shape_of(write.at)))


def _sliced(write: Writer, source: Node) -> Node:
    axis, start, length = (int(n) for n in write.at.args[1:])  # type: ignore[arg-type]
    start += g.shape_of(source)[axis] if start < 0 else 0
    return write(aten.slice.Tensor, source, axis, start, start + length)


_NAMES: tuple[tuple[frozenset[Any], Callable[[Writer, Node], Node]], ...] = (
    (_PERMUTING, _permuted),
    (_RESHAPING, _reshaped),
    (_EXPANDING, _expanded),
    (frozenset({aten.narrow.default}), _sliced),
)
