"""In-place operators → their functional twins: a graph of values, not of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import Graph, GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.graph import aten
from edgemix.rewrites.base import inherit


@dataclass(frozen=True)
class Functionalize:
    """``relu_(x)`` → ``relu(x)``, every later reader of x's memory reading the result.

    torch.export keeps in-place operators as they are written; a converter that takes them for
    pure functions would let earlier readers and later ones see the same value. What is written
    into a view, as in ``x[:, 0] = y``, becomes a concatenation of what stays and what is new.
    """

    name: ClassVar[str] = "functionalize"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were.

        Raises:
            UnsupportedError: a write into a view that is no contiguous part of its memory.
        """
        memory = _Memory(module.graph, self.name)
        return sum(memory.written(node) for node in list(module.graph.nodes))


def _twin(node: Node) -> torch._ops.OpOverload | None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    name = target.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, target._overloadname, None)


_SAME_ORDER = g.SAME_ORDER | {
    aten.alias.default, aten.detach.default, aten.to.dtype, aten.dropout.default,
}  # fmt: skip
"""Operators that give all of a value in its order, where they give its memory."""

_OVERWRITING = (
    aten.copy.default, aten.fill.Scalar, aten.fill.Tensor, aten.zero.default,
)  # fmt: skip


def _is_view(node: Node) -> bool:
    """Whether a value is memory of the operator's first argument: a reshape may be, or a copy."""
    source = node.args[0] if node.op == "call_function" and node.args else None
    if not isinstance(source, Node) or _twin(node) is not None:
        return False
    own, its = node.meta.get("val"), source.meta.get("val")
    if not (isinstance(own, torch.Tensor) and isinstance(its, torch.Tensor)):
        return False
    return bool(own.untyped_storage()._cdata == its.untyped_storage()._cdata)


class _Memory:
    """A graph whose values take the place of memory, from its first node on."""

    def __init__(self, graph: Graph, name: str) -> None:
        self._graph, self._name = graph, name
        self._place = {node: i for i, node in enumerate(graph.nodes)}
        self._views = {node for node in graph.nodes if _is_view(node)}
        self._at = self._last = next(iter(graph.nodes))

    def written(self, node: Node) -> bool:
        """Whether the node writes into memory; if so, it makes a value now."""
        twin = _twin(node)
        if twin is None:
            return False
        self._at = self._last = node
        viewed: Any = node.args[0]
        node.replace_all_uses_with(viewed, propagate_meta=False)  # its result is that memory
        value = node
        if twin in _OVERWRITING:
            value = self._overwritten(node, viewed)
        else:
            node.target = twin
        # Others that see this memory take the write from the value that it is a view of.
        while viewed in self._views and self._others_read_later(viewed):
            value, viewed = self._put(viewed, viewed.args[0], value), viewed.args[0]
        self._read_later(viewed, value)
        if value is not node and not node.users:
            self._graph.erase_node(node)
        return True

    def _call(self, target: Any, *args: Any, **options: Any) -> Node:
        """A call behind what was written last."""
        with self._graph.inserting_after(self._last):
            self._last = self._graph.call_function(target, args, options)
        self._last.meta["val"] = target(*map_arg(args, lambda n: n.meta["val"]), **options)
        self._place[self._last] = self._place[self._at]
        return inherit(self._last, self._at, self._name)

    def _overwritten(self, node: Node, into: Node) -> Node:
        """What is left where nothing of the memory is: a source in its shape and type."""
        wanted = into.meta["val"]
        value: Any = node.args[1] if len(node.args) > 1 else 0
        if not isinstance(value, Node):
            return self._call(aten.full.default, list(wanted.shape), value, dtype=wanted.dtype)
        if value.meta["val"].dtype != wanted.dtype:
            value = self._call(aten.to.dtype, value, wanted.dtype)
        return self._call(aten.expand.default, value, list(wanted.shape))

    def _others_read_later(self, view: Node) -> bool:
        """Whether anything behind this place sees a view's memory, but not through the view."""
        source = view
        while source in self._views:
            source = source.args[0]  # type: ignore[assignment]
        waiting = [source]
        while waiting:
            for user in waiting.pop().users:
                if self._place[user] > self._place[self._at]:
                    return True
                if user is not view and user in self._views:
                    waiting.append(user)
        return False

    def _read_later(self, old: Node, new: Node) -> None:
        """Let all behind this place read a new value, and views of it in the place of the old."""
        here = self._place[self._at]
        for view in [u for u in old.users if self._place[u] < here and u in self._views]:
            args = map_arg(view.args, lambda a: new if a is old else a)
            again = self._call(view.target, *args)
            self._views.add(again)
            self._read_later(view, again)
        old.replace_all_uses_with(new, lambda user: self._place[user] > here, propagate_meta=False)

    def _put(self, view: Node, source: Node, value: Node) -> Node:
        """The source with a value where its view was."""
        shape = list(g.shape_of(source))
        args: tuple[Any, ...] = view.args
        if view.target in (aten.select.int, aten.slice.Tensor):
            axis = args[1] if len(args) > 1 else 0
            size = shape[axis]
            step = 1
            if view.target is aten.select.int:
                value = self._call(aten.unsqueeze.default, value, axis)
                start = _within(args[2], size)
                end = start + 1
            else:
                given = dict(zip(("start", "end", "step"), args[2:], strict=False))
                start = _within(given.get("start") or 0, size)
                end = _within(size if given.get("end") is None else given["end"], size)
                step = given.get("step", 1)
            if step == 1:
                parts = [value]
                if start > 0:
                    parts.insert(0, self._call(aten.slice.Tensor, source, axis, 0, start))
                if end < size:
                    parts.append(self._call(aten.slice.Tensor, source, axis, end, size))
                return self._call(aten.cat.default, parts, axis) if len(parts) > 1 else value
        if view.target is aten.transpose.int:
            return self._call(aten.transpose.int, value, *args[1:])
        if view.target is aten.permute.default:
            back = [args[1].index(i) for i in range(len(shape))]
            return self._call(aten.permute.default, value, back)
        if view.target in _SAME_ORDER:
            return self._call(aten.reshape.default, value, shape)
        raise UnsupportedError(
            f"what is written into {g.op_name(view)} of a value that is read later has no place",
            at=str(g.where(self._at)),
            do="write it without the in-place operator",
        )


def _within(index: Any, size: int) -> int:
    return min(max(int(index) + (size if index < 0 else 0), 0), size)
