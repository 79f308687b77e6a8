"""In-place operators → their functional twins: a graph of values, not of memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix.graph import aten


@dataclass(frozen=True)
class Functionalize:
    """``relu_(x)`` → ``relu(x)``, every later reader of x reading the result.

    torch.export keeps in-place activations as they are written; a converter that takes them for
    pure functions would let earlier readers and later ones see the same value.
    """

    name: ClassVar[str] = "functionalize"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        count = 0
        order = {node: i for i, node in enumerate(module.graph.nodes)}
        for node in list(module.graph.nodes):
            twin = _twin(node)
            if twin is None:
                continue
            changed = node.args[0]
            node.target = twin
            changed.replace_all_uses_with(
                node, lambda user, at=order[node]: order[user] > at, propagate_meta=False
            )
            count += 1
        return count


def _twin(node: Node) -> torch._ops.OpOverload | None:
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or not target._schema.is_mutable:
        return None
    name = target.overloadpacket.__name__
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, target._overloadname, None)
