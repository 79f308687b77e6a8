"""Expansions that arithmetic does by itself → nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

_TURNS = frozenset({aten.permute.default, aten.transpose.int})


@dataclass(frozen=True)
class ImplicitExpands:
    """``x · y.expand(n, c, h, w)`` → ``x · y`` where y broadcasts to the same.

    An expansion that is only permuted before is done behind the permutation first. The LiteRT
    converter expands to the shape that was written down also where it has moved channels last, and
    on FPGAs a copy is wires anyway.
    """

    name: ClassVar[str] = "implicit_expands"

    def apply(self, module: GraphModule) -> int:
        """Drop them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            expand = _behind_turns(module, node, self.name) if _is_expand(node) else None
            if expand is not None:
                expand.replace_all_uses_with(expand.args[0], propagate_meta=False)  # type: ignore[arg-type]
                module.graph.erase_node(expand)
                count += 1
        return count


def _is_expand(node: Node) -> bool:
    return node.target is aten.expand.default and isinstance(node.args[0], Node)


def _behind_turns(module: GraphModule, node: Node, name: str) -> Node | None:
    """The expansion behind the permutations that follow it, where arithmetic makes it needless."""
    turns: list[Node] = []
    last = node
    while len(last.users) == 1 and next(iter(last.users)).target in _TURNS:
        last = next(iter(last.users))
        turns.append(last)
    source: Any = node.args[0]
    if turns and len(g.shape_of(source)) != len(g.shape_of(node)):
        return None
    shape = _turned(source, turns)
    if not last.users or not all(_broadcasts(reader, last, shape) for reader in last.users):
        return None
    if not turns:
        return node
    write = Writer(module, last, name)
    value = source
    for turn in turns:
        value = write(turn.target, value, *turn.args[1:])
    expanded = write(aten.expand.default, value, list(g.shape_of(last)))
    last.replace_all_uses_with(expanded, propagate_meta=False)
    module.graph.eliminate_dead_code()
    return expanded


def _turned(source: Node, turns: list[Node]) -> tuple[int, ...]:
    """The shape that a value has behind permutations."""
    value = torch.empty(g.shape_of(source), device="meta")
    for turn in turns:
        value = turn.target(value, *turn.args[1:])  # type: ignore[operator]
    return tuple(value.shape)


def _broadcasts(reader: Node, expand: Node, shape: tuple[int, ...]) -> bool:
    """Whether an operator gives the same shape when it reads what is expanded."""
    if reader.target not in g.ARITHMETIC or reader.kwargs:
        return False
    others = [a for a in reader.args[:2] if a is not expand]
    if len(others) != 1 or not isinstance(others[0], Node):
        return False
    pair = [torch.empty(size, device="meta") for size in (shape, g.shape_of(others[0]))]
    return torch.broadcast_tensors(*pair)[0].shape == g.shape_of(reader)  # type: ignore[no-untyped-call,no-any-return]
