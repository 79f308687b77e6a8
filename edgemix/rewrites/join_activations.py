"""Activations that are written out, ``x * sigmoid(x)`` → one operator, one table, one range."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

_POINTWISE = frozenset(
    {
        aten.abs.default, aten.add.Tensor, aten.clamp.default, aten.clamp_max.default,
        aten.clamp_min.default, aten.div.Tensor, aten.elu.default, aten.erf.default,
        aten.exp.default, aten.expm1.default, aten.ge.Scalar, aten.gt.Scalar,
        aten.hardsigmoid.default, aten.hardtanh.default, aten.le.Scalar, aten.log.default,
        aten.log1p.default, aten.lt.Scalar, aten.maximum.default, aten.minimum.default,
        aten.mul.Tensor, aten.neg.default, aten.ones_like.default, aten.pow.Tensor_Scalar,
        aten.reciprocal.default, aten.relu.default, aten.relu6.default, aten.rsub.Scalar,
        aten.sigmoid.default, aten.softplus.default, aten.square.default, aten.sub.Tensor,
        aten.tanh.default, aten.where.ScalarOther, aten.where.ScalarSelf, aten.where.self,
        aten.zeros_like.default, aten.log_sigmoid.default, aten.erfc.default,
    }
)  # fmt: skip
"""Of what activations are written."""

_MOST = 24
"""Nodes of an activation that is written out."""
_NEAR = 1e-6
"""Largest difference of the same activation, as a share of 1 + |x|: its numbers may be those of a
float32; the two forms of GELU differ by 5e-4."""

Scalar = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Known:
    """An activation: ``target(b x, *arguments, **options) / b``."""

    target: Any
    arguments: tuple[float, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()
    inner: float = 1.0
    """b."""

    def __call__(self, x: Tensor) -> Tensor:
        """Of every element."""
        found: Tensor = self.target(x * self.inner, *self.arguments, **dict(self.options))
        return found / self.inner


@dataclass(frozen=True)
class JoinActivations:
    """A piece of graph from one value to one of its shape that computes a known activation.

    What it computes is tried, not read: it runs in double precision on [-12, 12], and so do the
    activations. So it makes no difference in which of its many forms one is written. With a number
    of its own, x σ(β x) becomes silu(β x) / β (β = 1.702 is the quick GELU), whose factors find
    their way into weights.

    A piece of which something else reads a part stays as it is.
    """

    name: ClassVar[str] = "join_activations"

    def apply(self, module: GraphModule) -> int:
        """Join them all; returns how many there were."""
        nodes = list(module.graph.nodes)
        place = {node: i for i, node in enumerate(nodes)}
        # From the end: what stands before a node is as it was.
        return sum(
            _join(module, node, place, self.name)
            for node in reversed(nodes)
            if node.users and _is_part(module, node)
        )


def _join(module: GraphModule, node: Node, place: dict[Node, int], name: str) -> bool:
    for source, piece in _pieces(module, node, place):
        known = _recognized(lambda x, s=source, p=piece: _run(module, p, s, x))  # type: ignore[misc]
        if known is not None:
            write = Writer(module, node, name)
            x = source
            if known.inner != 1:
                x = write(aten.mul.Tensor, x, known.inner)
            joined = write(known.target, x, *known.arguments, **dict(known.options))
            if known.inner != 1:
                joined = write(aten.mul.Tensor, joined, 1 / known.inner)
            write.replace(joined)
            for part in reversed(piece[:-1]):
                module.graph.erase_node(part)
            return True
    return False


def _pieces(
    module: GraphModule, node: Node, place: dict[Node, int]
) -> Iterator[tuple[Node, list[Node]]]:
    """Pieces that end in a node and begin behind one value, the largest first."""
    piece, front, found = [node], _values(module, node), []
    while front:
        if len(front) == 1 and len(piece) > 1 and _closed(piece):
            (source,) = front
            if g.shape_of(source) == g.shape_of(node):
                found.append((source, sorted(piece, key=place.__getitem__)))
        latest = max(front, key=place.__getitem__)
        if not _is_part(module, latest) or len(piece) == _MOST:
            break
        piece.append(latest)
        front = (front - {latest}) | _values(module, latest)
    yield from reversed(found)


def _closed(piece: list[Node]) -> bool:
    """Whether only the last node is read from outside."""
    inside = set(piece)
    return all(reader in inside for part in piece[1:] for reader in part.users)


def _is_part(module: GraphModule, node: Node) -> bool:
    return node.target in _POINTWISE and all(
        g.shape_of(x) == g.shape_of(node) or _number(module, x) is not None
        for x in node.all_input_nodes
    )


def _values(module: GraphModule, node: Node) -> set[Node]:
    return {x for x in node.all_input_nodes if _number(module, x) is None}


def _number(module: GraphModule, node: Node) -> Tensor | None:
    """A constant of one element, in double precision."""
    if node.op != "get_attr" or node.meta["val"].numel() != 1:
        return None
    return g.constant(module, node).reshape(()).double()


def _run(module: GraphModule, piece: list[Node], source: Node, x: Tensor) -> Tensor:
    env: dict[Node, Any] = {source: x}

    def value(node: Node) -> Any:
        return env[node] if node in env else _number(module, node)

    for node in piece:
        assert callable(node.target)
        args, options = map_arg(node.args, value), map_arg(node.kwargs, value)
        env[node] = node.target(*args, **options)
    found: Tensor = env[piece[-1]]
    return found


def _recognized(function: Scalar) -> Known | None:
    x = torch.linspace(-12, 12, 2401, dtype=torch.float64)
    try:
        found = function(x)
    except (RuntimeError, TypeError):  # an operator with an argument that is no double
        return None
    if found.shape != x.shape or not found.is_floating_point():
        return None
    limit = _NEAR * (1 + x.abs())
    for known in (*_FIXED, *_fitted(function)):
        if bool(((known(x) - found).abs() <= limit).all()):
            return known
    return None


def _fitted(function: Scalar) -> Iterator[Known]:
    """Activations with a number, which one of their values tells."""
    low, zero, one = function(torch.tensor([-40.0, 0.0, 1.0], dtype=torch.float64)).tolist()
    if 0 < one < 1:
        yield Known(aten.silu.default, inner=_near(math.log(one / (1 - one))))
    if zero > 0:
        yield Known(aten.softplus.default, (_near(math.log(2) / zero),))
    if low < 0:
        yield Known(aten.elu.default, (_near(-low),))
        yield Known(aten.leaky_relu.default, (_near(-low / 40),))


def _near(number: float) -> float:
    """The number that a person wrote, of which a sum of doubles is off by a few units."""
    return float(f"{number:.9g}")


_FIXED = (
    Known(aten.gelu.default),
    Known(aten.gelu.default, options=(("approximate", "tanh"),)),
    Known(aten.silu.default),
    Known(aten.hardswish.default),
    Known(aten.hardsigmoid.default),
    Known(aten.mish.default),
    Known(aten.softplus.default),
    Known(aten.relu.default),
    Known(aten.sigmoid.default),
    Known(aten.tanh.default),
)
