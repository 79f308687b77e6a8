"""Where channels can be rescaled: a producer, and all that reads what it makes.

A seam's producer can divide its channels by anything, if all its readers multiply them again. In
between, views move channels, and positively homogeneous functions (ReLU, pooling, its square to the
second degree) let a positive factor through.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten

NORMS = frozenset({aten.layer_norm.default, aten.group_norm.default})
_SQUARES = frozenset({aten.square.default, aten.pow.Tensor_Scalar})
_TURNING = frozenset({aten.flip.default, aten.roll.default})
_HOMOGENEOUS = g.CLAMP_AT_ZERO | g.AVERAGING | {aten.max_pool2d.default}


@dataclass(frozen=True)
class Reader:
    """One end of a seam."""

    node: Node
    """A linear operator, or a product with a constant of one value per channel."""
    degree: int
    """By which power of the producer's scale its input shrinks."""
    axis: int | None
    """Of the channels, in its input; None where views took them apart, which one number for all
    does not mind."""


@dataclass(frozen=True)
class Seam:
    """A producer with its readers."""

    producer: Node
    axis: int
    """Of the channels, in the producer's result."""
    readers: tuple[Reader, ...]
    between: tuple[tuple[Node, int], ...]
    """What lies between, with the degree there."""
    moved_only: bool
    """Whether only views lie between, and no reader pads with zeros: then a shift goes through."""

    @property
    def channels(self) -> int:
        """How many there are."""
        return g.shape_of(self.producer)[self.axis]


def seams(module: GraphModule, *, to_factors: bool = False) -> Iterator[Seam]:
    """All seams of a graph, in its order.

    Args:
        module: the graph.
        to_factors: end seams at products with one constant number too, instead of passing them.
    """
    for node in module.graph.nodes:
        axis = output_axis(node)
        if axis is not None:
            found = _follow(node, axis, to_factors=to_factors)
            if found is not None:
                yield found


def output_axis(node: Node) -> int | None:
    """The axis whose channels a node can scale by its own constants."""
    if node.target is aten.linear.default and _constant(node.args[1]):
        return len(g.shape_of(node)) - 1
    if node.target in g.CONVOLUTION and _constant(node.args[1]):
        return 1
    if node.target is aten.group_norm.default:
        return 1
    if node.target is aten.layer_norm.default:
        normalized: Any = node.args[1]
        return len(g.shape_of(node)) - 1 if len(normalized) == 1 else None
    return None


def _constant(value: Any) -> bool:
    return isinstance(value, Node) and value.op == "get_attr"


def _follow(producer: Node, axis: int, *, to_factors: bool) -> Seam | None:
    channels = g.shape_of(producer)[axis]
    readers: list[Reader] = []
    between: list[tuple[Node, int]] = []
    moved_only = True
    waiting: list[tuple[Node, int | None, int]] = [(producer, axis, 1)]
    while waiting:
        node, at, degree = waiting.pop()
        for user in node.users:
            if user.op != "call_function":
                return None
            factor = to_factors and _is_factor(user, node)
            if factor or (at is not None and _absorbs(user, node, at, channels)):
                readers.append(Reader(user, degree, at))
                moved_only &= not pads(user)
                continue
            past = None if at is None else _through(user, node, at)
            if past is None and not (to_factors and user.target in g.REORDERING):
                return None
            if any(user is known for known, _ in between):
                continue
            power = 2 * degree if user.target in _SQUARES or _is_square(user) else degree
            moved_only &= user.target in g.REORDERING
            between.append((user, power))
            waiting.append((user, past, power))
    distinct = {r.node: r for r in readers}
    if not readers or len(distinct) != len(readers):
        return None
    degrees = {producer: 1, **dict(between)}
    for node, degree in between:
        if node.target in g.ADDITION and any(
            degrees.get(n) != degree for n in node.all_input_nodes
        ):
            return None
    return Seam(producer, axis, tuple(readers), tuple(between), moved_only)


def _absorbs(user: Node, node: Node, axis: int, channels: int) -> bool:
    if user.target is aten.linear.default:
        return (
            user.args[0] is node and axis == len(g.shape_of(node)) - 1 and _constant(user.args[1])
        )
    if user.target in g.CONVOLUTION:
        return user.args[0] is node and axis == 1 and _constant(user.args[1]) and (
            _groups(user) == 1 or is_depthwise(user)
        )  # fmt: skip
    if user.target is aten.mul.Tensor:
        other: Any = user.args[1] if user.args[0] is node else user.args[0]
        if not _constant(other) or other.meta["val"].numel() == 1:
            return False
        return per_channel(other.meta["val"], node, axis) is not None
    return False


def per_channel(value: Tensor, like: Node, axis: int) -> Tensor | None:
    """A constant beside a value as one number per channel; None where it is something else."""
    shape = g.shape_of(like)
    if value.numel() == 1:
        return value.reshape(1).expand(shape[axis]).clone()
    own = (1,) * (len(shape) - value.ndim) + tuple(value.shape)
    alone = len(own) == len(shape) and math.prod(own) == own[axis] == shape[axis]
    return value.reshape(-1) if alone else None


def _through(user: Node, node: Node, axis: int) -> int | None:
    """The channels' axis behind a node that lets a factor through; None where it does not."""
    if user.target in _HOMOGENEOUS or user.target in _SQUARES or _is_square(user):
        ok = user.target is not aten.pow.Tensor_Scalar or user.args[1] == 2
        return axis if ok else None
    if user.target in g.ADDITION:
        # Where both operands come from the producer, which is looked at in the end.
        return axis if g.shape_of(user) == g.shape_of(node) else None
    if user.target is aten.mean.dim or user.target is aten.amax.default:
        ndim = len(g.shape_of(node))
        wanted: Any = user.args[1]
        dims = {d % ndim for d in wanted}
        if axis in dims:
            return None
        keep = len(g.shape_of(user)) == ndim
        return axis if keep else axis - sum(d < axis for d in dims)
    if user.target is aten.mul.Tensor:
        return axis if _is_factor(user, node) else None
    if user.target in g.REORDERING:
        return moved_axis(user, axis)
    return None


def moved_axis(view: Node, axis: int) -> int | None:
    """Where a view puts an axis of its input; None where it does not stay one."""
    args: list[Any] = list(view.args)
    source: Node = args[0]
    before, after = g.shape_of(source), g.shape_of(view)
    if view.target in _TURNING:
        # The values of an axis that is turned itself change places.
        dims = args[1] if view.target is aten.flip.default else [*args[2:], range(len(before))][0]
        return None if axis in {d % len(before) for d in dims} else axis
    if view.target in (aten.permute.default, aten.transpose.int, aten.t.default):
        order = list(range(len(before)))
        if view.target is aten.permute.default:
            order = [d % len(before) for d in args[1]]
        else:
            a, b = args[1:3] if view.target is aten.transpose.int else (0, 1)
            a, b = a % len(before), b % len(before)
            order[a], order[b] = order[b], order[a]
        return order.index(axis)
    if view.target is aten.expand.default:
        return axis if before == after else None
    # Row-major views: the axis stays where as many values lie in front of it and behind it.
    front = math.prod(before[:axis])
    for i, size in enumerate(after):
        if size == before[axis] and math.prod(after[:i]) == front:
            return i
    return None


def _is_factor(user: Node, node: Node) -> bool:
    """Whether a node multiplies another by one constant number."""
    if user.target is not aten.mul.Tensor:
        return False
    other: Any = user.args[1] if user.args[0] is node else user.args[0]
    return _constant(other) and other.meta["val"].numel() == 1


def _is_square(node: Node) -> bool:
    return node.target is aten.mul.Tensor and node.args[0] is node.args[1]


def _groups(node: Node) -> int:
    groups: Any = node.args[6] if len(node.args) > 6 else 1
    return int(groups)


def is_depthwise(node: Node) -> bool:
    """Whether a convolution has one kernel for every channel."""
    weight: Any = node.args[1]
    return node.target in g.CONVOLUTION and _groups(node) == g.shape_of(weight)[0] and (
        g.shape_of(weight)[1] == 1
    )  # fmt: skip


def mixed_axis(reader: Node, source: Node) -> int | None:
    """The axis of its input that a linear operator sums over; None for other operators."""
    if (
        reader.op != "call_function"
        or reader.args[0] is not source
        or reader.target not in g.LINEAR
    ):
        return None
    if not _constant(reader.args[1]):
        return None
    if reader.target is aten.linear.default:
        return len(g.shape_of(source)) - 1
    return 1 if _groups(reader) == 1 else None


def pads(node: Node) -> bool:
    """Whether a convolution sees zeros around its input."""
    padding: Any = node.args[4] if node.target in g.CONVOLUTION and len(node.args) > 4 else [0]
    return padding == "same" or (not isinstance(padding, str) and any(padding))


def divide(module: GraphModule, seam: Seam, scale: Tensor, shift: Tensor | None = None) -> None:
    """Make the producer give (x − shift) / scale, and its readers take that, in place.

    Args:
        module: the graph.
        seam: one of its.
        scale: [channels], all positive.
        shift: [channels]; only where the seam is ``moved_only``.
    """
    _scale_producer(module, seam.producer, 1.0 / scale, shift)
    for reader in seam.readers:
        _scale_reader(module, reader.node, scale**reader.degree, shift, seam)


def _scale_producer(module: GraphModule, node: Node, factor: Tensor, shift: Tensor | None) -> None:
    norm = node.target in NORMS
    at = 2 if norm else 1
    args: list[Any] = list(node.args) + [None] * (at + 2 - len(node.args))
    weight = g.constant(module, args[at]) if isinstance(args[at], Node) else torch.ones_like(factor)
    bias = g.constant(module, args[at + 1]) if isinstance(args[at + 1], Node) else None
    scaled = weight * factor.reshape(-1, *[1] * (weight.ndim - 1))
    args[at] = g.add_constant(module, node, f"{node.name}_weight", scaled)
    if bias is not None or shift is not None:
        moved = (0.0 if bias is None else bias) - (0.0 if shift is None else shift)
        args[at + 1] = g.add_constant(module, node, f"{node.name}_bias", moved * factor)
    node.args = tuple(args)


def _scale_reader(
    module: GraphModule, node: Node, factor: Tensor, shift: Tensor | None, seam: Seam
) -> None:
    if node.target is aten.mul.Tensor:
        i = next(i for i, a in enumerate(node.args[:2]) if _constant(a))
        other: Any = node.args[i]
        value = g.constant(module, other)
        new = g.add_constant(
            module, node, f"{node.name}_factor", value * factor.reshape(value.shape)
        )
        node.args = tuple(new if k == i else a for k, a in enumerate(node.args))
        return
    args = list(node.args) + [None] * (3 - len(node.args))
    weight = g.constant(module, args[1])  # type: ignore[arg-type]
    along = 0 if is_depthwise(node) else 1
    shape = [1] * weight.ndim
    shape[along] = -1
    args[1] = g.add_constant(module, node, f"{node.name}_weight", weight * factor.reshape(shape))
    if shift is not None:
        summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
        more = summed[:, 0] * shift if along == 0 else summed @ shift
        bias = g.constant(module, args[2]) if isinstance(args[2], Node) else 0.0
        args[2] = g.add_constant(module, node, f"{node.name}_bias", bias + more)
    node.args = tuple(args)
