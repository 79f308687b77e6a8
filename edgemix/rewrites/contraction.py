"""A sum of products over named axes, as one linear operator, one matrix product or one product."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.narrow_moves import MOST
from edgemix.rewrites.writer import Writer

_CONVOLUTION: dict[int, Any] = {1: aten.conv1d.default, 2: aten.conv2d.default}
"""By the number of axes behind the channels."""


@dataclass(frozen=True)
class Factor:
    """A value or a constant with a letter for each of its axes, no letter twice."""

    node: Node
    axes: str
    value: Tensor | None = None
    """Of a constant."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As the letters count it."""
        return g.shape_of(self.node) if self.value is None else tuple(self.value.shape)

    def size(self, axis: str) -> int:
        """How long the axis of that letter is."""
        return self.shape[self.axes.index(axis)]


def contract(write: Writer, a: Factor, b: Factor, axes: str) -> Factor:
    """The product of two factors, summed over all axes that the result does not have.

    A constant becomes the weight of a linear operator: of a convolution of width one where its
    channels stand where a convolution has them, of one with groups where the constant shares an
    axis with the result and the value. Two values become a matrix product, or a product element by
    element where nothing is summed.
    """
    if a.value is not None:
        a, b = b, a
    a, b = _fitted(write, a, b, axes)
    a, b = _summed(write, a, (*b.axes, *axes)), _summed(write, b, (*a.axes, *axes))
    if not _inner(a, b, axes):
        return _scaled(write, a, b, axes)
    if b.value is None:
        return _multiplied(write, a, b, axes)
    return _weighed(write, a, b, axes)


def moved(write: Writer, factor: Factor, axes: Iterable[str]) -> Factor:
    """With its axes in another order."""
    axes = "".join(axes)
    order = [factor.axes.index(axis) for axis in axes]
    if order == sorted(order):
        return factor
    if factor.value is not None:
        return Factor(factor.node, axes, factor.value.permute(order))
    last = len(order) - 1
    if order == [*range(last - 1), last, last - 1]:
        return Factor(write(aten.transpose.int, factor.node, last - 1, last), axes)
    return Factor(write(aten.permute.default, factor.node, order), axes)


def alone(write: Writer, a: Factor, axes: str) -> Factor:
    """One factor, summed over the axes that the result does not have."""
    return moved(write, _summed(write, a, tuple(axes)), axes)


def _fitted(write: Writer, a: Factor, b: Factor, axes: str) -> tuple[Factor, Factor]:
    """Without axes of one place that the other factor has too, where it is as long or longer."""
    for axis in set(a.axes) & set(b.axes):
        if b.size(axis) == 1 and (b.value is not None or a.size(axis) != 1):
            b = _without(write, b, axis)
        elif a.size(axis) == 1 and b.size(axis) != 1:
            a = _without(write, a, axis)
    return a, b


def _without(write: Writer, factor: Factor, axis: str) -> Factor:
    at, rest = factor.axes.index(axis), factor.axes.replace(axis, "")
    if factor.value is not None:
        return Factor(factor.node, rest, factor.value.squeeze(at))
    return Factor(write(aten.squeeze.dim, factor.node, at), rest)


def _summed(write: Writer, factor: Factor, read: tuple[str, ...]) -> Factor:
    gone = [i for i, axis in enumerate(factor.axes) if axis not in read]
    if not gone:
        return factor
    rest = "".join(axis for axis in factor.axes if axis in read)
    if factor.value is not None:
        return Factor(factor.node, rest, factor.value.sum(gone))
    return Factor(write(aten.sum.dim_IntList, factor.node, gone), rest)


def _inner(a: Factor, b: Factor, axes: str) -> str:
    return "".join(axis for axis in a.axes if axis in b.axes and axis not in axes)


def _common(a: Factor, b: Factor, axes: str) -> str:
    return "".join(axis for axis in axes if axis in a.axes and axis in b.axes)


def _own(a: Factor, b: Factor, axes: str) -> str:
    """What the result has of one factor alone, in the result's order."""
    return "".join(axis for axis in axes if axis in a.axes and axis not in b.axes)


def _scaled(write: Writer, a: Factor, b: Factor, axes: str) -> Factor:
    """Element by element: each factor with an axis of one place for those that it lacks."""
    pieces = []
    for factor in (a, b):
        turned = moved(write, factor, (axis for axis in axes if axis in factor.axes))
        shape = [turned.size(axis) if axis in turned.axes else 1 for axis in axes]
        if turned.value is not None:
            pieces.append(write.constant("factor", turned.value.reshape(shape).contiguous()))
        else:
            pieces.append(_shaped(write, turned.node, shape))
    return Factor(write(aten.mul.Tensor, *pieces), axes)


def _multiplied(write: Writer, a: Factor, b: Factor, axes: str) -> Factor:
    """[shared, own of a, inner] · [shared, inner, own of b]."""
    if _own(a, b, axes) and axes[-1] in _own(a, b, axes):
        a, b = b, a  # which spares the result a transposition
    shared, inner = _common(a, b, axes), _inner(a, b, axes)
    rows, columns = _own(a, b, axes), _own(b, a, axes)
    sizes = {**_sizes(b), **_sizes(a)}
    lead = [sizes[axis] for axis in shared]
    if len(lead) + 2 > MOST:
        lead = [math.prod(lead)]
    depth = _count(sizes, inner)
    left = moved(write, a, shared + rows + inner).node
    left = _shaped(write, left, [*lead, _count(sizes, rows), depth])
    right = moved(write, b, shared + inner + columns).node
    right = _shaped(write, right, [*lead, depth, _count(sizes, columns)])
    product = write(aten.matmul.default, left, right)
    return _finished(write, product, shared + rows + columns, sizes, axes)


def _weighed(write: Writer, a: Factor, b: Factor, axes: str) -> Factor:
    assert b.value is not None
    shared, inner, new = _common(a, b, axes), _inner(a, b, axes), _own(b, a, axes)
    kept = _own(a, b, axes)
    sizes = {**_sizes(b), **_sizes(a)}
    wide = moved(write, b, shared + new + inner).value
    assert wide is not None
    groups, outs, depth = (_count(sizes, part) for part in (shared, new, inner))
    weight = wide.reshape(groups * outs, depth).contiguous()
    first = a.axes[0] if a.axes[0] in kept else ""
    rest = "".join(axis for axis in a.axes[len(first) :] if axis in kept)
    as_channels = a.axes == first + inner + rest and axes == first + new + rest
    if not shared and not (first and rest and as_channels):
        turned = moved(write, a, kept + inner).node
        rows = _shaped(write, turned, [*(sizes[axis] for axis in kept), depth])
        product = write(aten.linear.default, rows, write.constant("weight", weight))
        return _finished(write, product, kept + new, sizes, axes)
    behind = [sizes[axis] for axis in rest]
    if len(behind) not in _CONVOLUTION:
        behind = [math.prod(behind)]
    turned = moved(write, a, first + shared + inner + rest).node
    x = _shaped(write, turned, [_count(sizes, first), groups * depth, *behind])
    axial = len(behind)
    kernels = write.constant("weight", weight.reshape(*weight.shape, *[1] * axial))
    once, none = [1] * axial, [0] * axial
    options = (None, once, none, once, groups) if groups > 1 else ()
    product = write(_CONVOLUTION[axial], x, kernels, *options)
    return _finished(write, product, first + shared + new + rest, sizes, axes)


def _finished(write: Writer, product: Node, found: str, sizes: dict[str, int], axes: str) -> Factor:
    """A product whose axes lie as ``found``, some as one, in the order of the result."""
    whole = _shaped(write, product, [sizes[axis] for axis in found])
    return moved(write, Factor(whole, found), axes)


def _sizes(factor: Factor) -> dict[str, int]:
    return dict(zip(factor.axes, factor.shape, strict=True))


def _count(sizes: dict[str, int], axes: str) -> int:
    return math.prod(sizes[axis] for axis in axes)


def _shaped(write: Writer, node: Node, shape: list[int]) -> Node:
    same = g.shape_of(node) == tuple(shape)
    return node if same else write(aten.reshape.default, node, shape)


def constant_of(write: Writer, node: Node) -> Tensor | None:
    """The value of a constant, also of one that is repeated along axes; None of others."""
    if node.op == "get_attr":
        return g.constant(write.module, node)
    source = node.args[0] if node.target is aten.expand.default else None
    if not isinstance(source, Node) or source.op != "get_attr":
        return None
    value = g.constant(write.module, source)
    missing = len(g.shape_of(node)) - value.ndim
    return torch.reshape(value, (*[1] * missing, *value.shape))
