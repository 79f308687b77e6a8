"""square(x), x ** 2 → x · x: a product, which every target has in integers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class PlainPowers:
    """Replace second powers: StarReLU's, squared ReLU's, energies.

    Runtimes of phones square in float between integers, and hls4ml has no layer for it.
    """

    name: ClassVar[str] = "plain_powers"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        squares = [n for n in module.graph.nodes if n.op == "call_function" and _is_square(n)]
        for node in squares:
            write = Writer(module, node, self.name)
            source = node.args[0]
            node.replace_all_uses_with(write(aten.mul.Tensor, source, source))
            module.graph.erase_node(node)
        return len(squares)


def _is_square(node: Node) -> bool:
    if node.target is aten.square.default:
        return True
    return node.target is aten.pow.Tensor_Scalar and node.args[1] in (2, 2.0)
