"""What an inference has to do, counted in the units that time is made of.

An operator is of one kind, and its time is a sum: each multiplication of its kind costs, each
weight that is loaded, each value that is read or written, and the operator itself. So the work of a
model is one vector, and its time on a device the product with a vector of costs. Peaks and
bandwidths alone, a roofline, leave out what small models are made of: starting operators.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch.fx import Node

from edgemix import graph as g
from edgemix.diagnosis import macs
from edgemix.graph import Where, aten
from edgemix.program import Program

Vector = npt.NDArray[np.float64]

Product = Literal["winograd", "convolution", "pointwise", "depthwise", "grouped", "matrix"]
"""``winograd``: 3×3 with stride 1, where fast algorithms save up to 2.25 times the products."""
Other = Literal["light", "nonlinear", "heavy"]
"""``light``: element by element, and joins of channels. ``heavy``: what reorders or reduces."""
Kind = Product | Other

PRODUCTS: tuple[Product, ...] = (
    "winograd", "convolution", "pointwise", "depthwise", "grouped", "matrix",
)  # fmt: skip
UNITS = (
    *PRODUCTS, "weights", "values", "products", "light values", "lights", "nonlinear values",
    "nonlinears", "heavy values", "heavies", "inference",
)  # fmt: skip
"""Of a vector of work: millions of multiplications by kind, of weights and of values; counts."""
_PLACE = {name: i for i, name in enumerate(UNITS)}
_OTHERS: dict[str, tuple[str, str]] = {
    "light": ("light values", "lights"),
    "nonlinear": ("nonlinear values", "nonlinears"),
    "heavy": ("heavy values", "heavies"),
}

_WINOGRAD_CHANNELS = 16
"""Below, the transforms cost more than the products that they save (ncnn and XNNPACK ask alike)."""

_LIGHT = frozenset(
    {
        aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default,
        aten.hardswish.default, aten.hardsigmoid.default, aten.clamp.default,
        aten.clamp_min.default, aten.leaky_relu.default, aten.prelu.default,
        aten.abs.default, aten.neg.default,
        aten.max_pool2d.default, aten.avg_pool2d.default, aten.cat.default, aten.slice.Tensor,
        aten.select.int, aten.split_with_sizes.default, aten.stack.default, aten.chunk.default,
        aten.unbind.int, *g.ARITHMETIC,
    }
) - {aten.div.Tensor}  # fmt: skip
_NONLINEAR = frozenset(
    {
        aten.gelu.default, aten.silu.default, aten.sigmoid.default, aten.tanh.default,
        aten.exp.default, aten.log.default, aten.sqrt.default, aten.rsqrt.default,
        aten.pow.Tensor_Scalar, aten.erf.default, aten.softplus.default, aten.mish.default,
        aten.sin.default, aten.cos.default, aten.reciprocal.default, aten.elu.default,
        aten.div.Tensor,
    }
)  # fmt: skip
_FREE = g.SAME_ORDER | {aten.alias.default, aten.t.default}


@dataclass(frozen=True)
class Work:
    """What one operator has to do."""

    where: Where
    op: str
    kind: Kind
    multiplications: int = 0
    weights: int = 0
    values: int = 0
    """Read and written, those of the weights not counted."""

    @property
    def vector(self) -> Vector:
        """By :data:`UNITS`; what starts an inference is nobody's."""
        found = np.zeros(len(UNITS))
        if self.kind in PRODUCTS:
            found[_PLACE[self.kind]] = self.multiplications / 1e6
            found[_PLACE["weights"]] = self.weights / 1e6
            found[_PLACE["values"]] = self.values / 1e6
            found[_PLACE["products"]] = 1
        else:
            values, count = _OTHERS[self.kind]
            found[_PLACE[values]] = self.values / 1e6
            found[_PLACE[count]] = 1
        return found


def works(program: Program) -> tuple[Work, ...]:
    """The work of every operator that computes or moves values, in order."""
    return tuple(w for node in g.float_ops(program.shared) for w in _of(node))


def total(found: Iterable[Work]) -> Vector:
    """The work of one inference, by :data:`UNITS`."""
    vector = sum((w.vector for w in found), np.zeros(len(UNITS)))
    vector[_PLACE["inference"]] = 1
    return vector


def multiplications(vector: Vector) -> float:
    """Millions of them."""
    return float(vector[: len(PRODUCTS)].sum())


def _of(node: Node) -> Iterator[Work]:
    target: Any = node.target
    if target in _FREE or "val" not in node.meta or not hasattr(node.meta["val"], "shape"):
        return
    where, op, shape = g.where(node), g.op_name(node), g.shape_of(node)
    values = math.prod(shape) + sum(_size(a) for a in node.all_input_nodes if not g.is_constant(a))
    if target in g.LINEAR or target is aten.conv_transpose2d.input:
        yield _linear(node, where, op, values)
    elif target in g.MATRIX_PRODUCT:
        yield Work(where, op, "matrix", macs(node), 0, values)
    elif target is aten.scaled_dot_product_attention.default:
        yield from _attention(node, where, op)
    else:
        light = target in _LIGHT
        kind: Kind = "light" if light else "nonlinear" if target in _NONLINEAR else "heavy"
        if target is aten.avg_pool2d.default and math.prod(shape[2:]) == 1:
            kind = "heavy"
        yield Work(where, op, kind, values=values)


def _linear(node: Node, where: Where, op: str, values: int) -> Work:
    source, weight = node.args[0], node.args[1]
    assert isinstance(source, Node) and isinstance(weight, Node)
    given, kernel = g.shape_of(source), g.shape_of(weight)
    size, taps = math.prod(kernel), math.prod(kernel[2:])
    if node.target is aten.linear.default:
        return Work(where, op, "pointwise", macs(node), size, values)
    if node.target is aten.conv_transpose2d.input:
        kind: Kind = "depthwise" if kernel[1] == 1 else "convolution"
        return Work(where, op, kind, math.prod(given) * kernel[1] * taps, size, values)
    if kernel[1] < given[1]:
        kind = "depthwise" if kernel[1] == 1 else "grouped"
    elif taps == 1:
        kind = "pointwise"
    else:
        fast = tuple(kernel[2:]) == (3, 3) and given[1] >= _WINOGRAD_CHANNELS and _stride(node) == 1
        kind = "winograd" if fast else "convolution"
    return Work(where, op, kind, macs(node), size, values)


def _attention(node: Node, where: Where, op: str) -> Iterator[Work]:
    given, against = node.args[:2]
    assert isinstance(given, Node) and isinstance(against, Node)
    query, key = g.shape_of(given), g.shape_of(against)
    batch, rows, depth, columns = math.prod(query[:-2]), query[-2], query[-1], key[-2]
    scores = batch * rows * columns
    outer = batch * (rows + columns) * depth
    yield Work(where, op, "matrix", scores * depth, 0, outer + scores)
    yield Work(where, op, "heavy", values=2 * scores)
    yield Work(where, op, "matrix", scores * depth, 0, scores + outer)


def _stride(node: Node) -> int:
    stride = node.args[3] if len(node.args) > 3 else node.kwargs.get("stride", 1)
    return g.pair(stride)[0]


def _size(node: Node) -> int:
    return math.prod(g.shape_of(node)) if hasattr(node.meta.get("val"), "shape") else 0
