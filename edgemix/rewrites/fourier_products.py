"""Fourier transforms → products with constant matrices, of pairs of real values."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.pairs import RULES, Pair
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class FourierProducts:
    """A discrete Fourier transform of n values is a product with cos and sin of 2π k t / n.

    A complex value becomes two real nodes, and a transform along one axis, of values x + x' i::

        real = [C  S] [x; x']        imaginary = [−S  C] [x; x']

    one after the other along several axes. ``torch.fft`` itself makes the matrices, of unit
    vectors and in double precision, so that lengths, norms and missing halves are in them.

    A complex value that is computed in a way that is not known here stays what it is, and so does
    what is computed from it.
    """

    name: ClassVar[str] = "fourier_products"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many real values are computed without complex ones."""
        walk = _Walk(module, self.name)
        count = walk.run()
        if not count and not walk.pairs:
            return 0
        module.graph.eliminate_dead_code()
        _forget_unread(module, {str(n.target) for found in walk.matrices.values() for n in found})
        return count


@dataclass
class _Walk:
    """One pass through a graph: complex nodes get real twins, real nodes behind them read those."""

    module: GraphModule
    name: str
    pairs: dict[Node, Pair] = field(default_factory=dict)
    matrices: dict[Any, tuple[Node, ...]] = field(default_factory=dict)

    def run(self) -> int:
        count = 0
        for node in list(self.module.graph.nodes):
            write = Writer(self.module, node, self.name)
            found = self._twin(write)
            if isinstance(found, Pair):
                self.pairs[node] = _whole(write, found)
            elif found is not None:
                write.replace(found)
                count += 1
        return count

    def _twin(self, write: Writer) -> Pair | Node | None:
        node = write.at
        if node.op == "get_attr" and g.is_complex(node):
            value = g.constant(self.module, node).resolve_conj()
            parts = {"real": value.real, "imaginary": value.imag}
            return Pair(*(write.constant(k, v.clone()) for k, v in parts.items()))
        if node.target in _TRANSFORMS:
            return self._transform(write)
        if node.target in _SHIFTS:
            return self._shift(write)
        if node.target in RULES and any(map(g.is_complex, (node, *node.all_input_nodes))):
            return RULES[node.target](write, lambda value: self._parts(write, value))
        return None

    def _parts(self, write: Writer, value: Any) -> Pair | None:
        if isinstance(value, Node):
            return self.pairs.get(value) if g.is_complex(value) else Pair(value)
        shape = (1,) if write.at.meta["val"].ndim else ()
        number = complex(value)
        real = write.constant("number", torch.full(shape, number.real))
        if number.imag == 0:
            return Pair(real)
        return Pair(real, write.constant("number", torch.full(shape, number.imag)))

    def _shift(self, write: Writer) -> Pair | Node | None:
        value = self._parts(write, write.at.args[0])
        if value is None:
            return None
        parts = [part for part in (value.real, value.imaginary) if part is not None]
        made = [write(aten.roll.default, part, *_shifts(write.at)) for part in parts]
        return Pair(*made) if g.is_complex(write.at) else made[0]

    def _transform(self, write: Writer) -> Pair | Node | None:
        found: Pair | Node | None = self._parts(write, write.at.args[0])
        kind, lengths, axes, norm = _arguments(write.at)
        along = list(zip(axes, lengths, strict=True))
        kinds = [_OTHER_AXES.get(kind, kind)] * (len(axes) - 1) + [kind]
        steps = list(zip(kinds, along, strict=True))
        if kind in _FROM_REAL:
            steps.reverse()
        for kind, (axis, length) in steps:
            if found is None:
                return None
            assert isinstance(found, Pair)
            found = self._along(write, found, axis, (kind, length, norm))
        return found

    def _along(
        self, write: Writer, value: Pair, axis: int, options: tuple[Any, ...]
    ) -> Pair | Node:
        last = len(g.shape_of(value.real)) - 1
        size = g.shape_of(value.real)[axis]
        kind, length, _ = options
        if size == 1 and (length is None or length == 1):
            return value.real if kind in _TO_REAL else value  # one value is its own transform
        x = value.real
        if value.imaginary is not None:
            x = write(aten.cat.default, [value.real, value.imaginary], axis)
        if axis != last:
            x = write(aten.transpose.int, x, axis, last)
        key = (x.meta["val"].dtype, size, value.imaginary is None, *options)
        if key not in self.matrices:
            found = _matrices(*key)
            self.matrices[key] = tuple(write.constant("matrix", matrix) for matrix in found)
        made = [write(aten.linear.default, x, matrix) for matrix in self.matrices[key]]
        if axis != last:
            made = [write(aten.transpose.int, product, axis, last) for product in made]
        return Pair(*made) if len(made) == 2 else made[0]


def _forget_unread(module: GraphModule, made: set[str]) -> None:
    """Constants that nothing reads: a program would keep them, and converters fail on complex ones.

    Args:
        module: the graph.
        made: names of real constants that are not to stay either.
    """
    read = {node.target for node in module.graph.find_nodes(op="get_attr")}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if name not in read and (value.is_complex() or name in made):
            owner, _, last = name.rpartition(".")
            delattr(module.get_submodule(owner), last)


def _matrices(
    dtype: torch.dtype, size: int, real: bool, kind: str, length: int | None, norm: str | None
) -> tuple[Tensor, ...]:
    """[results, values] of the real part, and of the imaginary one where there is one.

    The values are ``size`` real parts and, unless all are real, as many imaginary ones.
    """
    units = torch.eye(size, dtype=torch.float64)
    if not real:
        units = torch.cat([units + 0j, units * 1j])
    found = getattr(torch.fft, kind)(units, n=length, norm=norm)
    parts = (found.real, found.imag) if found.is_complex() else (found,)
    return tuple(part.T.to(dtype).contiguous() for part in parts)


def _whole(write: Writer, pair: Pair) -> Pair:
    """Both parts in the shape of the complex value: a sum may have left one unbroadcast."""
    shape = list(g.shape_of(write.at))

    def fit(part: Node | None) -> Node | None:
        if part is None or list(g.shape_of(part)) == shape:
            return part
        return write(aten.expand.default, part, shape)

    real = fit(pair.real)
    assert real is not None
    return Pair(real, fit(pair.imaginary))


def _arguments(node: Node) -> tuple[str, list[int | None], list[int], str | None]:
    """Kind, lengths and axes of a transform along any number of axes, and its norm."""
    kind, suffix = _TRANSFORMS[node.target]
    ndim = len(g.shape_of(node))
    given: list[Any] = [*node.args[1:], None, None, None][:3]
    names = ("n" if suffix == "" else "s", "dim", "norm")
    lengths, axes, norm = (node.kwargs.get(n, value) for n, value in zip(names, given, strict=True))
    if suffix == "":
        lengths, axes = [lengths], [-1 if axes is None else axes]
    elif axes is None:
        count = 2 if suffix == "2" else ndim if lengths is None else len(lengths)
        axes = list(range(ndim - count, ndim))
    lengths = [None] * len(axes) if lengths is None else lengths
    return kind, [None if n == -1 else n for n in lengths], [a % ndim for a in axes], norm


def _shifts(node: Node) -> tuple[list[int], list[int]]:
    """By how much the zero frequency is shifted, and along which axes."""
    shape = g.shape_of(node)
    given: Any = node.args[1] if len(node.args) > 1 else None
    axes = list(range(len(shape))) if given is None else [a % len(shape) for a in given]
    back = node.target is aten.fft_ifftshift.default
    return [(shape[a] + back) // 2 for a in axes], axes


_KINDS = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
_TRANSFORMS: dict[Any, tuple[str, str]] = {
    getattr(aten, f"fft_{kind}{suffix}").default: (kind, suffix)
    for kind in _KINDS
    for suffix in ("", "2", "n")
}
_OTHER_AXES = {"rfft": "fft", "irfft": "ifft", "hfft": "fft", "ihfft": "ifft"}
"""What these do along all axes but the last."""
_FROM_REAL = ("rfft", "ihfft")
"""Those that begin with the last axis, since they take real values there."""
_TO_REAL = ("irfft", "hfft")
_SHIFTS = (aten.fft_fftshift.default, aten.fft_ifftshift.default)
