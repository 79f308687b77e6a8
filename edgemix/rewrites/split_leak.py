"""A leak β · v → v − (1 − β) · v: what is lost is quantized, not what stays.

A memory of a hundred steps has β = 0.99. In eight bits the nearest numbers give a memory of 64 or
of 128 steps; the small number 1 − β has eight bits of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import step


@dataclass(frozen=True)
class SplitLeak:
    """``v * β`` with a constant 1/2 < β < 1 (every element) → ``v - v * (1 - β)``.

    Only where the product is fed back to the state that v is: elsewhere nothing is gained.
    """

    name: ClassVar[str] = "split_leak"
    states: int = 0
    """How many of the last arguments are states, and of the last results."""

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        count = 0
        for node in g.integrating(module, self.states):
            factor = _leak(module, node)
            if factor is None:
                continue
            beta, value = factor
            lost = g.add_constant(module, node, f"{node.name}_lost", 1.0 - beta)
            with module.graph.inserting_before(node):
                product = step(node, self.name, aten.mul.Tensor, value, lost)
                rest = step(node, self.name, aten.sub.Tensor, value, product)
            node.replace_all_uses_with(rest, propagate_meta=False)
            count += 1
        return count


def _leak(module: GraphModule, node: Node) -> tuple[Tensor, Node] | None:
    if node.target is not aten.mul.Tensor:
        return None
    for constant, value in (node.args[:2], node.args[1::-1]):
        if isinstance(constant, Node) and constant.op == "get_attr" and isinstance(value, Node):
            beta = g.constant(module, constant)
            inside = bool(((beta > 0.5) & (beta < 1)).all())
            return (beta, value) if inside and value.op != "get_attr" else None
    return None
