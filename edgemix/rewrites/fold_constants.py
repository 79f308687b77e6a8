"""What is computed from weights alone is a weight."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from edgemix import graph as g


@dataclass(frozen=True)
class FoldConstants:
    """``exp(A)`` of a parameter A, ``ones(1, 4)``: computed once, a constant from then on.

    An expanded constant stays: it would take more memory than it does. One that is concatenated
    does not: that writes every value down.
    """

    name: ClassVar[str] = "fold_constants"

    def apply(self, module: GraphModule) -> int:
        """Fold them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            value = _value(module, node)
            if value is not None:
                constant = g.add_constant(module, node, f"{node.name}_value", value)
                node.replace_all_uses_with(constant, propagate_meta=False)
                module.graph.erase_node(node)
                count += 1
        return count


def _value(module: GraphModule, node: Node) -> Tensor | None:
    if node.op != "call_function" or g.is_dequantize(node):
        return None
    if node.target is g.aten.expand.default and not _is_concatenated(node):
        return None
    sources = node.all_input_nodes
    if node.target is operator.getitem:  # one of several results, such as those of a mesh
        sources = sources[0].all_input_nodes
    result = node.meta.get("val")
    if any(n.op != "get_attr" for n in sources) or not isinstance(result, Tensor):
        return None
    if node.kwargs.get("device") not in (None, torch.device("cpu")):
        return None
    found = _run(module, node)
    return found.contiguous() if isinstance(found, Tensor) else None


def _is_concatenated(node: Node) -> bool:
    return all(reader.target is g.aten.cat.default for reader in node.users)


def _run(module: GraphModule, node: Node) -> Any:
    def value(a: Any) -> Any:
        if not isinstance(a, Node):
            return a
        return g.constant(module, a) if a.op == "get_attr" else _run(module, a)

    assert callable(node.target)
    args: Any = map_aggregate(node.args, value)
    with torch.no_grad():
        return node.target(*args, **node.kwargs)
