"""A softmax over one value is one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.fold_constants import FoldConstants


@dataclass(frozen=True)
class FoldSoftmax:
    """``softmax(x)`` over an axis of size 1 → ones, whatever x is; ``v @ ones`` → v.

    Attention on a map of one position has it. ONNX Runtime 1.31 gives zero for it in int8.
    """

    name: ClassVar[str] = "fold_softmax"

    def apply(self, module: GraphModule) -> int:
        """Fold them all; returns how many there were."""
        count = 0
        for target in (aten.softmax.int, aten._softmax.default):
            for node in module.graph.find_nodes(op="call_function", target=target):
                axis = node.args[1]
                assert isinstance(axis, int)
                if g.shape_of(node)[axis] == 1:
                    ones = torch.ones(g.shape_of(node), dtype=node.meta["val"].dtype)
                    constant = g.add_constant(module, node, f"{node.name}_one", ones)
                    node.replace_all_uses_with(constant, propagate_meta=False)
                    module.graph.erase_node(node)
                    count += 1
        if count:
            FoldConstants().apply(module)  # its transpose is a constant too
            _skip_ones(module)
        return count


def _skip_ones(module: GraphModule) -> None:
    """Attention to one value is that value."""
    for node in module.graph.find_nodes(op="call_function", target=aten.matmul.default):
        for value, weights in (node.args[:2], node.args[1::-1]):
            ones = weights.op == "get_attr" and bool((g.constant(module, weights) == 1).all())
            single = ones and g.shape_of(weights)[-2:] == (1, 1)
            if single and g.shape_of(value) == g.shape_of(node):
                node.replace_all_uses_with(value, propagate_meta=False)
                module.graph.erase_node(node)
                break
