"""``scan`` and ``map`` over a sequence of known length → their steps, written out."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.graph import aten
from edgemix.rewrites.inlining import graph_of, inline
from edgemix.rewrites.writer import Writer

_HIGHER = torch.ops.higher_order
_REMEDIES: dict[str, str] = {
    "while_loop": "write a loop with a number of turns that is known, or a scan",
    "cond": "compute both branches and choose with torch.where",
    "associative_scan": "write it as torch._higher_order_ops.scan, or as a step with a state",
}


@dataclass(frozen=True)
class UnrollScans:
    """y, s = f(s, x) over the leading axis of x: one copy of f's nodes for every place.

    A long sequence makes a large graph; a model that is exported as a step with a state has no
    scan, and is of one size for sequences of any length.
    """

    name: ClassVar[str] = "unroll_scans"

    def apply(self, module: GraphModule) -> int:
        """Unroll them all, those inside of others too; returns how many there were.

        Raises:
            UnsupportedError: a loop or branch that depends on values, or another operator on
                graphs.
        """
        count = 0
        while found := [node for node in module.graph.nodes if node.target in _PARTS]:
            for node in found:
                _unroll(Writer(module, node, self.name))
            count += len(found)
        for node in module.graph.nodes:
            _refuse(node)
        return count


def _scanned(node: Node) -> tuple[Any, ...]:
    return tuple(node.args[:4])


def _mapped(node: Node) -> tuple[Any, ...]:
    body, sequences, more = node.args[:3]
    return body, (), sequences, more


_PARTS: dict[Any, Any] = {_HIGHER.scan: _scanned, _HIGHER.map_impl: _mapped}
"""From a node to its graph, what it carries, its sequences and what every step takes too."""


def _unroll(write: Writer) -> None:
    node, module = write.at, write.module
    body, carried, sequences, more = _PARTS[node.target](node)
    inner, steps = graph_of(module, body), g.shape_of(sequences[0])[0]
    state: list[Node] = list(carried)
    rows: list[list[Node]] = []
    for t in range(steps):
        now = [write(aten.select.int, x, 0, t) for x in sequences]
        found = inline(module, node, inner, [*state, *now, *more])
        state, row = found[: len(carried)], found[len(carried) :]
        rows.append([write(aten.unsqueeze.default, value, 0) for value in row])
    stacked = [_joined(write, column) for column in zip(*rows, strict=True)]
    for item in list(node.users):
        place: Any = item.args[1]
        assert item.target is operator.getitem
        item.replace_all_uses_with([*state, *stacked][place], propagate_meta=False)
        module.graph.erase_node(item)
    module.graph.erase_node(node)
    if not body.users:
        module.graph.erase_node(body)


def _joined(write: Writer, pieces: Sequence[Node]) -> Node:
    return pieces[0] if len(pieces) == 1 else write(aten.cat.default, list(pieces), 0)


def _refuse(node: Node) -> None:
    name = g.op_name(node)
    if isinstance(node.target, torch._ops.HigherOrderOperator):
        remedy = _REMEDIES.get(name, "write out what it does with plain operators")
        what = f"{name} is an operator on graphs, which no target has"
        raise UnsupportedError(what, at=str(g.where(node)), do=remedy)
    if getattr(node.target, "__module__", "") == _MAPPING:
        what = "a vmap (torch.func, or a generic associative_scan) was exported half open"
        raise UnsupportedError(what, at=str(g.where(node)), do="write the operation for a batch")


_MAPPING = "torch._functorch.predispatch"
