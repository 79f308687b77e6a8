"""Arithmetic of more than five axes → the same of five, foremost axes as one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.narrow_moves import MOST
from edgemix.rewrites.writer import Writer

_ARITHMETIC = frozenset({aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor})


@dataclass(frozen=True)
class NarrowSums:
    """[a, b, h, w, i, j] + [a, b, h, w, i, 1] → [a·b, h, w, i, j] + [a·b, h, w, i, 1].

    Relative positions of MViTv2 are added along each axis of a window. Only where the foremost axes
    are as long in all operands, so that they are one without a copy.
    """

    name: ClassVar[str] = "narrow_sums"

    def apply(self, module: GraphModule) -> int:
        """Rewrite them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target in _ARITHMETIC and _can(node):
                _narrowed(Writer(module, node, self.name), node)
                count += 1
        return count


def _can(node: Node) -> bool:
    shape = g.shape_of(node)
    front = shape[: len(shape) - MOST + 1]
    return len(shape) > MOST and all(
        isinstance(a, Node) and len(s := g.shape_of(a)) == len(shape) and s[: len(front)] == front
        for a in node.args[:2]
    )


def _narrowed(write: Writer, node: Node) -> None:
    shape = list(g.shape_of(node))
    front = len(shape) - MOST + 1
    operands = []
    for wide in node.args[:2]:
        assert isinstance(wide, Node)
        narrow = [math.prod(shape[:front]), *g.shape_of(wide)[front:]]
        source: Any = wide
        while source.target in g.SAME_ORDER:
            source = source.args[0]
        operands.append(write(aten.reshape.default, source, narrow))
    found = write(node.target, *operands)
    write.replace(write(aten.reshape.default, found, shape))
