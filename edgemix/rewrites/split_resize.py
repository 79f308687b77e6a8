"""Resizes → wires where they repeat values, products with constants where they weight them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.resize_products import RESIZES, as_products
from edgemix.rewrites.writer import Writer

_NEAREST = frozenset(
    {
        aten.upsample_nearest2d.vec, aten.upsample_nearest2d.default,
        aten._upsample_nearest_exact2d.vec, aten._upsample_nearest_exact2d.default,
    }
)  # fmt: skip


@dataclass(frozen=True)
class SplitResize:
    """A resize to the nearest value → slices that are joined; a bilinear one → R x Cᵀ.

    What firmware makes of slices and their concatenation is wires, and of products with constants
    a few adders; it has no layer for a resize.
    """

    name: ClassVar[str] = "split_resize"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        found = [n for n in module.graph.nodes if n.target in _NEAREST | RESIZES]
        for node in found:
            write = Writer(module, node, self.name)
            if node.target in _NEAREST:
                _repeat(write)
            else:
                as_products(write)
        return len(found)


def _repeat(write: Writer) -> None:
    value: Any = write.at.args[0]
    for axis in (2, 3):
        places = _places(write.at, axis)
        before, after = g.shape_of(value)[axis], len(places)
        if places == [i * before // after for i in range(after)] and after % before == 0:
            value = _expanded(write, value, axis, after // before)
        elif places != list(range(before)):
            parts = [write(aten.slice.Tensor, value, axis, i, i + 1) for i in places]
            value = write(aten.cat.default, parts, axis)
    write.replace(value)


def _expanded(write: Writer, value: Node, axis: int, times: int) -> Node:
    """Every place of an axis, so many times in a row."""
    if times == 1:
        return value
    shape = list(g.shape_of(value))
    apart = write(aten.unsqueeze.default, value, axis + 1)
    repeated = [*shape[: axis + 1], times, *shape[axis + 1 :]]
    more = write(aten.expand.default, apart, repeated)
    shape[axis] *= times
    return write(aten.reshape.default, more, shape)


def _places(node: Node, axis: int) -> list[int]:
    """Which place along an axis each of the result's is a copy of: asked from the operator."""
    shape = g.shape_of(node.args[0])  # type: ignore[arg-type]
    along = [1, 1]
    along[axis - 2] = shape[axis]
    numbers = torch.arange(shape[axis], dtype=torch.float32).reshape(1, 1, *along)
    found = node.target(numbers.expand(1, 1, *shape[2:]), *node.args[1:], **node.kwargs)  # type: ignore[operator]
    line = found[0, 0, :, 0] if axis == 2 else found[0, 0, 0]
    return [int(i) for i in line]
