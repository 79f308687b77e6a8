"""Complex values as pairs of real nodes, and what operators make of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class Pair:
    """A complex value."""

    real: Node
    imaginary: Node | None = None
    """None holds zeros."""


Lookup = Callable[[Any], Pair | None]
"""From an operator's argument to its parts; None where they are not known."""
Rule = Callable[[Writer, Lookup], Pair | Node | None]
"""From an operator to what it makes, of real nodes; None where an argument is not known."""


def multiplied(write: Writer, function: Callable[[Node, Node], Node], a: Pair, b: Pair) -> Pair:
    """A product, of whatever kind: (a b − a' b') + (a b' + a' b) i."""

    def times(x: Node | None, y: Node | None) -> Node | None:
        return None if x is None or y is None else function(x, y)

    real = minus(write, function(a.real, b.real), times(a.imaginary, b.imaginary))
    assert real is not None
    crossed = times(a.real, b.imaginary), times(a.imaginary, b.real)
    return Pair(real, plus(write, *crossed))


def plus(write: Writer, a: Node | None, b: Node | None) -> Node | None:
    """A sum in which None is zero."""
    if a is None or b is None:
        return b if a is None else a
    return write(aten.add.Tensor, a, b)


def minus(write: Writer, a: Node | None, b: Node | None) -> Node | None:
    """A difference in which None is zero."""
    if b is None:
        return a
    return write(aten.neg.default, b) if a is None else write(aten.sub.Tensor, a, b)


def conjugate(write: Writer, a: Pair) -> Pair:
    """The complex conjugate."""
    return Pair(a.real, minus(write, None, a.imaginary))


def squared(write: Writer, a: Pair) -> Node:
    """The squared absolute value."""
    square = write(aten.mul.Tensor, a.real, a.real)
    if a.imaginary is None:
        return square
    return write(aten.add.Tensor, square, write(aten.mul.Tensor, a.imaginary, a.imaginary))


def zeros(write: Writer, like: Node) -> Node:
    """Zeros of a real node's shape."""
    return write.constant("zeros", torch.zeros(g.shape_of(like)))


def _product(write: Writer, parts: Lookup) -> Pair | None:
    a, b = (parts(x) for x in write.at.args)
    target = write.at.target
    return a and b and multiplied(write, lambda x, y: write(target, x, y), a, b)


def _einsum(write: Writer, parts: Lookup) -> Pair | None:
    equation, operands = write.at.args[:2]
    if len(operands) != 2:  # type: ignore[arg-type]
        return None
    a, b = (parts(x) for x in operands)  # type: ignore[union-attr]
    return a and b and multiplied(write, lambda x, y: write(_EINSUM, equation, [x, y]), a, b)


def _added(write: Writer, parts: Lookup) -> Pair | None:
    a, b = (parts(x) for x in write.at.args[:2])
    if a is None or b is None or write.at.kwargs:  # a factor, which nobody gives complex values
        return None
    combine = plus if write.at.target is aten.add.Tensor else minus
    real = combine(write, a.real, b.real)
    assert real is not None
    return Pair(real, combine(write, a.imaginary, b.imaginary))


def _reversed(write: Writer, parts: Lookup) -> Pair | None:
    a, b = (parts(x) for x in write.at.args[:2])
    if a is None or b is None or len(write.at.args) > 2 or write.at.kwargs:
        return None
    real = minus(write, b.real, a.real)
    assert real is not None
    return Pair(real, minus(write, b.imaginary, a.imaginary))


def _divided(write: Writer, parts: Lookup) -> Pair | None:
    a, b = (parts(x) for x in write.at.args[:2])
    if a is None or b is None:
        return None
    above, below = a, b.real
    if b.imaginary is not None:
        above = multiplied(write, lambda x, y: write(aten.mul.Tensor, x, y), a, conjugate(write, b))
        below = squared(write, b)
    imaginary = above.imaginary and write(aten.div.Tensor, above.imaginary, below)
    return Pair(write(aten.div.Tensor, above.real, below), imaginary)


def _each(write: Writer, parts: Lookup) -> Pair | None:
    node = write.at
    a = parts(node.args[0])
    if a is None or set(node.kwargs) - {"memory_format"}:
        return None
    # The parts may lie in memory otherwise than the complex values did.
    target = aten.reshape.default if node.target in _VIEWS else node.target
    imaginary = a.imaginary and write(target, a.imaginary, *node.args[1:])
    return Pair(write(target, a.real, *node.args[1:]), imaginary)


def _padded(write: Writer, parts: Lookup) -> Pair | None:
    value = write.at.args[2:] if write.at.target is _PAD else write.at.args[3:]
    return None if any(value) else _each(write, parts)


def _joined(write: Writer, parts: Lookup) -> Pair | None:
    pieces = [parts(x) for x in write.at.args[0]]  # type: ignore[union-attr]
    known = [p for p in pieces if p is not None]
    if len(known) < len(pieces):
        return None
    rest = write.at.args[1:]
    real = write(aten.cat.default, [p.real for p in known], *rest)
    if all(p.imaginary is None for p in known):
        return Pair(real)
    imaginary = [p.imaginary or zeros(write, p.real) for p in known]
    return Pair(real, write(aten.cat.default, imaginary, *rest))


def _same(write: Writer, parts: Lookup) -> Pair | None:
    return parts(write.at.args[0])


def _converted(write: Writer, parts: Lookup) -> Pair | Node | None:
    a = parts(write.at.args[0])
    wanted = write.at.kwargs.get("dtype")
    if a is None or wanted not in (torch.complex64, torch.float32):
        return None
    return a if wanted is torch.complex64 else a.real


def _conjugate(write: Writer, parts: Lookup) -> Pair | None:
    a = parts(write.at.args[0])
    return None if a is None else conjugate(write, a)


def _negative(write: Writer, parts: Lookup) -> Pair | None:
    a = parts(write.at.args[0])
    if a is None:
        return None
    return Pair(write(aten.neg.default, a.real), minus(write, None, a.imaginary))


def _composed(write: Writer, parts: Lookup) -> Pair:
    real, imaginary = write.at.args[:2]
    return Pair(real, imaginary)  # type: ignore[arg-type]


def _from_last_axis(write: Writer, parts: Lookup) -> Pair:
    return Pair(*(_entry(write, write.at.args[0], i) for i in (0, 1)))


def _entry(write: Writer, x: Any, index: int) -> Node:
    """One of two values along the last axis; what was stacked there is not stacked first."""
    if x.target in _POINTWISE:
        return write(x.target, _entry(write, x.args[0], index), *x.args[1:])
    pieces = x.args[0] if x.target is aten.cat.default else []
    if len(pieces) == 2 and all(map(_opens_last_axis, pieces)):
        stacked: Node = pieces[index].args[0]
        return stacked
    return write(aten.select.int, x, -1, index)


def _opens_last_axis(node: Node) -> bool:
    last = len(g.shape_of(node)) - 1
    return node.target is aten.unsqueeze.default and node.args[1] in (-1, last)


def _as_last_axis(write: Writer, parts: Lookup) -> Node | None:
    a = parts(write.at.args[0])
    if a is None:
        return None
    both = [a.real, a.imaginary or zeros(write, a.real)]
    return write(aten.cat.default, [write(aten.unsqueeze.default, x, -1) for x in both], -1)


def _real(write: Writer, parts: Lookup) -> Node | None:
    a = parts(write.at.args[0])
    return None if a is None else a.real


def _imaginary(write: Writer, parts: Lookup) -> Node | None:
    a = parts(write.at.args[0])
    return None if a is None else a.imaginary or zeros(write, a.real)


def _absolute(write: Writer, parts: Lookup) -> Node | None:
    a = parts(write.at.args[0])
    if a is None:
        return None
    if a.imaginary is None:
        return write(aten.abs.default, a.real)
    return write(aten.sqrt.default, squared(write, a))


def _angle(write: Writer, parts: Lookup) -> Node | None:
    a = parts(write.at.args[0])
    if a is None:
        return None
    return write(aten.atan2.default, a.imaginary or zeros(write, a.real), a.real)


def _polar(write: Writer, parts: Lookup) -> Pair:
    length, angle = write.at.args
    return _turned(write, length, angle)


def _exponential(write: Writer, parts: Lookup) -> Pair | None:
    a = parts(write.at.args[0])
    if a is None:
        return None
    length = write(aten.exp.default, a.real)
    return Pair(length) if a.imaginary is None else _turned(write, length, a.imaginary)


def _turned(write: Writer, length: Any, angle: Any) -> Pair:
    sides = (write(wave, angle) for wave in (aten.cos.default, aten.sin.default))
    return Pair(*(write(aten.mul.Tensor, length, side) for side in sides))


def _square(write: Writer, parts: Lookup) -> Pair | None:
    a = parts(write.at.args[0])
    if a is None or tuple(write.at.args[1:]) not in ((), (2,)):
        return None
    return multiplied(write, lambda x, y: write(aten.mul.Tensor, x, y), a, a)


_EINSUM = aten.einsum.default
_PAD = aten.constant_pad_nd.default
_POINTWISE = frozenset({aten.relu.default, aten.softshrink.default, aten.tanh.default})
"""What mixers apply to real and imaginary parts beside each other."""
_VIEWS = frozenset({aten.view.default, aten._unsafe_view.default})
_EACH = (
    (g.VIEW - {aten.alias.default})
    | {
        aten.index_select.default, aten.sum.dim_IntList, aten.sum.default,
        aten.mean.dim, aten.mean.default,
        aten.movedim.int, aten.movedim.intlist,
    }
)  # fmt: skip
"""Operators that do to real and imaginary parts what they do to real numbers."""

RULES: dict[Any, Rule] = {
    **dict.fromkeys(_EACH, _each),
    **dict.fromkeys(
        (aten.mul.Tensor, aten.matmul.default, aten.bmm.default, aten.mm.default), _product
    ),
    **dict.fromkeys((aten.add.Tensor, aten.sub.Tensor), _added),
    **dict.fromkeys(
        (aten._conj.default, aten.conj.default, aten._conj_physical.default,
         aten.conj_physical.default), _conjugate,
    ),
    **dict.fromkeys(
        (aten.resolve_conj.default, aten.resolve_neg.default, aten.alias.default), _same
    ),
    **dict.fromkeys((_PAD, aten.pad.default), _padded),
    aten.einsum.default: _einsum,
    aten.rsub.Scalar: _reversed,
    aten.div.Tensor: _divided,
    aten.cat.default: _joined,
    aten._to_copy.default: _converted,
    aten.neg.default: _negative,
    aten.complex.default: _composed,
    aten.view_as_complex.default: _from_last_axis,
    aten.view_as_real.default: _as_last_axis,
    aten.real.default: _real,
    aten.imag.default: _imaginary,
    aten.abs.default: _absolute,
    aten.angle.default: _angle,
    aten.polar.default: _polar,
    aten.exp.default: _exponential,
    aten.square.default: _square,
    aten.pow.Tensor_Scalar: _square,
}  # fmt: skip
