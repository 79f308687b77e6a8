"""softmax → max, subtract, exp, sum, divide: steps that fixed point computes exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import inherit


@dataclass(frozen=True)
class SplitSoftmax:
    """Split every softmax along one axis.

    Before::

        x ─▶ softmax(dim) ─▶ y

    After::

        x ─┬──────────▶ sub ─▶ exp ─┬────────▶ div ─▶ y
           └─▶ amax(dim) ┘          └─▶ sum ───┘

    Once quantized, exp of an integer is a table, and e / sum(e) a quotient of two integers: the
    sum of n eight-bit integers is below n · 2^8 and exact, and float32 rounds the quotient to
    eight bits as exact arithmetic does while n · 2^8 ≤ 2^15: a quotient that is no
    tie lies at least 1 / (2 · sum) LSB away from one, float32 is off by at most 2^-16 LSB.
    """

    name: ClassVar[str] = "split_softmax"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        graph = module.graph
        found = [n for n in graph.nodes if n.target in (aten.softmax.int, aten._softmax.default)]
        for node in found:
            x, dim = node.args[0], node.args[1]
            with graph.inserting_before(node):

                def make(target: object, *args: object, old: Node = node) -> Node:
                    return inherit(graph.call_function(target, args), old, self.name)  # type: ignore[arg-type]

                top = make(aten.amax.default, x, [dim], True)
                shifted = make(aten.sub.Tensor, x, top)
                power = make(aten.exp.default, shifted)
                total = make(aten.sum.dim_IntList, power, [dim], True)
                result = make(aten.div.Tensor, power, total)
            node.replace_all_uses_with(result)
            graph.erase_node(node)
        return len(found)
