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
    aten.upsample_nearest2d.vec: aten.upsample_nearest2d.default,
    aten.upsample_nearest2d.default: aten.upsample_nearest2d.default,
    aten._upsample_nearest_exact2d.vec: aten._upsample_nearest_exact2d.default,
    aten._upsample_nearest_exact2d.default: aten._upsample_nearest_exact2d.default,
}
"""Every overload with the one that takes sizes and factors: (x, size, [align_corners,] h, w)."""

NEAREST = frozenset(t for t in _PLAIN if "nearest" in t.__name__)
RESIZES = frozenset(_PLAIN)
_HAD = NEAREST | {aten.upsample_bilinear2d.default}
"""Those that every runtime has."""
_ALIGNED = RESIZES - NEAREST
"""Those whose third argument says whether corners are aligned."""


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
            as_products(Writer(module, node, self.name), matrix(node, 2), matrix(node, 3))
        return len(found)


def _is_lacking(node: Node) -> bool:
    """Whether it is cubic or smoothed, or measures by a factor that is not the ratio of sizes."""
    if node.target is not aten.upsample_bilinear2d.vec:
        return node.target in RESIZES - _HAD
    x, _, align, factors = node.args[:4]
    if align or factors is None:
        return False
    sizes = zip(g.shape_of(x)[2:], g.shape_of(node)[2:], factors, strict=True)  # type: ignore[arg-type]
    return any(after != before * factor for before, after, factor in sizes)


def as_products(write: Writer, rows: Tensor, columns: Tensor) -> None:
    """Put the products with R and with Cᵀ into the place of a resize."""
    x: Any = write.at.args[0]
    wide = write(aten.linear.default, x, write.constant("columns", columns))
    turned = write(aten.transpose.int, wide, 2, 3)
    tall = write(aten.linear.default, turned, write.constant("rows", rows))
    write.replace(write(aten.transpose.int, tall, 2, 3))


def matrix(node: Node, axis: int) -> Tensor:
    """[after, before]: what a resize makes of every unit vector along an axis."""
    x: Any = node.args[0]
    before, after = g.shape_of(x)[axis], g.shape_of(node)[axis]
    units = torch.eye(before, dtype=x.meta["val"].dtype)[None, None]
    size = [before, before]
    size[axis - 2] = after
    # Along the other axis, which has one place for every unit vector, nothing is to change.
    along = [factor if i == axis else None for i, factor in enumerate(_factors(node), 2)]
    align = node.args[2:3] if node.target in _ALIGNED else ()
    resized: Tensor = _PLAIN[node.target](units, size, *align, *along)  # type: ignore[index]
    return (resized[0, 0] if axis == 2 else resized[0, 0].T).contiguous()


def _factors(node: Node) -> list[float | None]:
    """Of height and width, None where the ratio of sizes is meant."""
    given: list[Any] = list(node.args[3 if node.target in _ALIGNED else 2 :])
    if node.target not in _PLAIN.values():  # the overload with a list of both
        given = [None, None] if given[0] is None else list(given[0])
    return [*given, None, None][:2]
