"""Division of two activations → product with a reciprocal, which fixed point does by a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import step


@dataclass(frozen=True)
class SplitDivision:
    """``a / b`` → ``a * reciprocal(b)`` where b is computed."""

    name: ClassVar[str] = "split_division"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        count = 0
        for node in module.graph.find_nodes(op="call_function", target=aten.div.Tensor):
            a, b = node.args[:2]
            if not isinstance(b, Node) or b.op == "get_attr":
                continue
            with module.graph.inserting_before(node):
                inverse = step(node, self.name, aten.reciprocal.default, b)
                result = step(node, self.name, aten.mul.Tensor, a, inverse)
            node.replace_all_uses_with(result)
            module.graph.erase_node(node)
            count += 1
        return count
