"""Resizes → wires where they repeat values, products with constants where they weight them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.resize_products import NEAREST, RESIZES, as_products, matrix
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class SplitResize:
    """A whole number of copies of each place → expand; any other resize → R x Cᵀ.

    What firmware makes of copies is wires, and of products with constants a few adders, none where
    a row of R has a single one; it has no layer for a resize.
    """

    name: ClassVar[str] = "split_resize"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        found = [n for n in module.graph.nodes if n.target in RESIZES]
        for node in found:
            write = Writer(module, node, self.name)
            times = _times(node) if node.target in NEAREST else None
            if times is None:
                as_products(write, matrix(node, 2), matrix(node, 3))
            else:
                _repeat(write, times)
        return len(found)


def _times(node: Node) -> tuple[int, int] | None:
    """How many times each row and each column stands there, where that is a whole number."""
    before, after = (g.shape_of(n)[2:] for n in (node.args[0], node))  # type: ignore[arg-type]
    high, wide = (a // b for a, b in zip(after, before, strict=True))
    for axis, times in ((2, high), (3, wide)):
        copies = torch.eye(before[axis - 2]).repeat_interleave(times, 0)
        if not torch.equal(matrix(node, axis), copies):
            return None
    return high, wide


def _repeat(write: Writer, times: tuple[int, int]) -> None:
    value: Any = write.at.args[0]
    for axis, count in zip((2, 3), times, strict=True):
        if count > 1:
            value = _expanded(write, value, axis, count)
    write.replace(value)


def _expanded(write: Writer, value: Node, axis: int, times: int) -> Node:
    """Every place of an axis, so many times in a row."""
    shape = list(g.shape_of(value))
    apart = write(aten.unsqueeze.default, value, axis + 1)
    repeated = [*shape[: axis + 1], times, *shape[axis + 1 :]]
    more = write(aten.expand.default, apart, repeated)
    shape[axis] *= times
    return write(aten.reshape.default, more, shape)
