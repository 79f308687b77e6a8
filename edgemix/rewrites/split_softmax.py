"""softmax → max, subtract, exp, sum, reciprocal, product: steps that fixed point has exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import step


@dataclass(frozen=True)
class SplitSoftmax:
    """Split every softmax along one axis.

    Before::

        x ─▶ softmax(dim) ─▶ y

    After::

        x ─┬──────────▶ sub ─▶ exp ─┬─────────────────────▶ mul ─▶ y
           └─▶ amax(dim) ┘          └─▶ sum ─▶ reciprocal ───┘

    Once quantized, exp and the reciprocal of integers are tables, and sums and products of
    integers are exact: nothing here needs a divider.
    """

    name: ClassVar[str] = "split_softmax"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        graph = module.graph
        found = [n for n in graph.nodes if n.target in (aten.softmax.int, aten._softmax.default)]
        for node in found:
            x, dim = node.args[0], node.args[1]
            assert isinstance(x, Node)
            with graph.inserting_before(node):
                top = step(node, self.name, aten.amax.default, x, [dim], True)
                shifted = step(node, self.name, aten.sub.Tensor, x, top)
                power = step(node, self.name, aten.exp.default, shifted)
                total = step(node, self.name, aten.sum.dim_IntList, power, [dim], True)
                inverse = step(node, self.name, aten.reciprocal.default, total)
                result = step(node, self.name, aten.mul.Tensor, power, inverse)
            node.replace_all_uses_with(result)
            graph.erase_node(node)
        return len(found)
