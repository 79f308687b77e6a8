"""Resizes that runtimes lack → two products with constant matrices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

_PLAIN = {
    aten.upsample_bilinear2d.vec: aten.upsample_bilinear2d.default,
    aten.upsample_bilinear2d.default: aten.upsample_bilinear2d.default,
    aten.upsample_bicubic2d.vec: aten.upsample_bicubic2d.default,
    aten.upsample_bicubic2d.default: aten.upsample_bicubic2d.default,
    aten._upsample_bicubic2d_aa.vec: aten._upsample_bicubic2d_aa.default,
    aten._upsample_bicubic2d_aa.default: aten._upsample_bicubic2d_aa.default,
    aten._upsample_bilinear2d_aa.vec: aten._upsample_bilinear2d_aa.default,
    aten._upsample_bilinear2d_aa.default: aten._upsample_bilinear2d_aa.default,
}
"""Every overload with the one that takes sizes and factors: (x, size, align_corners, h, w)."""


@dataclass(frozen=True)
class ResizeProducts:
    """resize(x) = R x Cᵀ, R [height after, height before] and C [width after, width before].

    A resize treats rows and columns apart, and what it makes of a unit row is a column of R. So the
    operator itself finds both matrices, and all of its options are in them.
    """

    name: ClassVar[str] = "resize_products"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        found = [node for node in module.graph.nodes if _is_lacking(node)]
        for node in found:
            as_products(Writer(module, node, self.name))
        return len(found)


RESIZES = frozenset(_PLAIN)
"""Those that weight what they read."""


def _is_lacking(node: Node) -> bool:
    """Whether it is cubic or smoothed, or measures by a factor that is not the ratio of sizes."""
    if node.target is aten.upsample_bilinear2d.default:
        return False
    if node.target is not aten.upsample_bilinear2d.vec:
        return node.target in _PLAIN
    x, _, align, factors = node.args[:4]
    if align or factors is None:
        return False
    sizes = zip(g.shape_of(x)[2:], g.shape_of(node)[2:], factors, strict=True)  # type: ignore[arg-type]
    return any(after != before * factor for before, after, factor in sizes)


def as_products(write: Writer) -> None:
    """Put both products into the place of a resize."""
    x: Any = write.at.args[0]
    rows, columns = (_matrix(write.at, axis) for axis in (2, 3))
    wide = write(aten.linear.default, x, write.constant("columns", columns))
    turned = write(aten.transpose.int, wide, 2, 3)
    tall = write(aten.linear.default, turned, write.constant("rows", rows))
    write.replace(write(aten.transpose.int, tall, 2, 3))


def _matrix(node: Node, axis: int) -> Tensor:
    """[after, before]: what the operator makes of every unit vector along an axis."""
    x: Any = node.args[0]
    before, after = g.shape_of(x)[axis], g.shape_of(node)[axis]
    given: list[Any] = [*node.args[2:], None, None, None]
    align, factors = given[0], given[1:3]
    if node.target not in _PLAIN.values():  # the overload with a list of both factors
        factors = [None, None] if factors[0] is None else list(factors[0])
    units = torch.eye(before, dtype=x.meta["val"].dtype)[None, None]
    size = [before, before]
    size[axis - 2] = after
    # Along the other axis, which has one place for every unit vector, nothing is to change.
    along = [factor if i == axis else None for i, factor in enumerate(factors, 2)]
    resized: Tensor = _PLAIN[node.target](units, size, align, *along)  # type: ignore[index]
    return (resized[0, 0] if axis == 2 else resized[0, 0].T).contiguous()
