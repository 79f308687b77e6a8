"""prelu(x, a) with one slope for all channels → leaky_relu(x, a): an activation with a number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class PlainSlopes:
    """Replace PReLU where its slope is one constant.

    An FPGA has a table for every function of one value, and so for this one with its number; a
    slope of each channel needs as many tables and stays.
    """

    name: ClassVar[str] = "plain_slopes"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        found = [n for n in module.graph.nodes if n.target is aten.prelu.default]
        return sum(_replaced(module, node, self.name) for node in found)


def _replaced(module: GraphModule, node: Node, name: str) -> bool:
    source, slope = node.all_input_nodes
    if slope.op != "get_attr" or slope.meta["val"].numel() != 1:
        return False
    write = Writer(module, node, name)
    write.replace(write(aten.leaky_relu.default, source, float(g.constant(module, slope))))
    return True
