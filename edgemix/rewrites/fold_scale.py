"""Products with constants (LayerScale, the scale of attention, StarReLU's) → into weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import step
from edgemix.seams import divide, mixed_axis, pads, per_channel, seams

_LINEAR = g.REORDERING | g.ADDITION | g.AVERAGING | {aten.mean.dim}


@dataclass(frozen=True)
class FoldScale:
    """A constant factor, or a constant added, goes where weights are anyway.

    Backward, where the factor (one number, or one per channel) is all that reads a linear operator
    or a norm, through views, averages and differences of these::

        norm(γ) ─▶ pool(x) − x ─▶ · c        becomes   norm(c γ) ─▶ pool(x) − x

    Forward, where linear operators are all that reads the result::

        (x · c + b) ─▶ linear(W, d)          becomes   x ─▶ linear(W c, d + Σ W b)
    """

    name: ClassVar[str] = "fold_scale"

    def apply(self, module: GraphModule) -> int:
        """Fold all that can be; returns how many there were."""
        if not any(_follows_product(node) for node in module.graph.nodes):
            return _fold(module, self.name)
        # A factor moves before its product in vain where nothing takes it there: tried on a copy.
        return _fold(module, self.name) if _fold(copy.deepcopy(module), self.name) else 0


def _fold(module: GraphModule, name: str) -> int:
    for node in list(module.graph.nodes):
        if _follows_product(node):
            _before_product(module, node, name)
    count = 0
    while _into_a_producer(module):
        count += 1
    # From the end: what is added goes first, and the factor before it finds the way free.
    for node in reversed(list(module.graph.nodes)):
        if node.target in (aten.mul.Tensor, aten.add.Tensor):
            count += _into_readers(module, node)
    return count


def _into_a_producer(module: GraphModule) -> bool:
    """Backward; through nothing that is not linear, since a factor may be negative."""
    for seam in seams(module, to_factors=True):
        reader = seam.readers[0]
        if len(seam.readers) > 1 or reader.node.target is not aten.mul.Tensor:
            continue
        if any(node.target not in _LINEAR for node, _ in seam.between):
            continue
        x, constant = _operands(reader.node)
        assert constant is not None
        value = g.constant(module, constant)
        if value.numel() == 1:
            factor: Tensor | None = value.reshape(1).expand(seam.channels)
        else:
            factor = None if reader.axis is None else per_channel(value, x, reader.axis)
        if factor is None or bool((factor == 0).any()):
            continue
        reader.node.replace_all_uses_with(x)
        module.graph.erase_node(reader.node)
        divide(module, replace(seam, readers=()), 1.0 / factor)
        return True
    return False


def _follows_product(node: Node) -> bool:
    """Whether it is a matrix product times one number, and all that reads the product."""
    if node.target is not aten.mul.Tensor:
        return False
    product, constant = _operands(node)
    if constant is None or constant.meta["val"].numel() != 1 or len(product.users) != 1:
        return False
    return product.target in g.MATRIX_PRODUCT


def _before_product(module: GraphModule, node: Node, name: str) -> None:
    """(a b) · c → (a · c) b: a linear operator may lie before a, none lies before the product."""
    product, constant = _operands(node)
    assert constant is not None
    first: Any = product.args[0]
    with module.graph.inserting_before(product):
        number = module.graph.get_attr(str(constant.target))
        number.meta["val"] = constant.meta["val"]
        scaled = step(node, name, aten.mul.Tensor, first, number)
    product.args = (scaled, *product.args[1:])
    node.replace_all_uses_with(product)
    module.graph.erase_node(node)


def _into_readers(module: GraphModule, node: Node) -> bool:
    """Forward, if every reader is a linear operator along the same axis."""
    x, constant = _operands(node)
    if constant is None or g.shape_of(x) != g.shape_of(node):
        return False
    readers = list(node.users)
    axes = {mixed_axis(reader, node) for reader in readers}
    axis = axes.pop() if len(axes) == 1 else None
    value = None if axis is None else per_channel(g.constant(module, constant), x, axis)
    adds = node.target is aten.add.Tensor
    if value is None or (adds and any(pads(reader) for reader in readers)):
        return False
    node.replace_all_uses_with(x)
    module.graph.erase_node(node)
    for reader in readers:
        args: list[Any] = list(reader.args) + [None] * (3 - len(reader.args))
        weight = g.constant(module, args[1])
        if adds:
            summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
            given = g.constant(module, args[2]) if isinstance(args[2], Node) else 0.0
            args[2] = g.add_constant(module, reader, f"{reader.name}_bias", given + summed @ value)
        else:
            scaled = weight * value.reshape(1, -1, *[1] * (weight.ndim - 2))
            args[1] = g.add_constant(module, reader, f"{reader.name}_weight", scaled)
        reader.args = tuple(args)
    return True


def _operands(node: Node) -> tuple[Node, Node | None]:
    """The value and the real constant of a sum or product; None where it has no such constant."""
    a, b = node.args[:2]
    if isinstance(a, Node) and a.op == "get_attr":
        a, b = b, a
    assert isinstance(a, Node)
    real = isinstance(b, Node) and b.op == "get_attr" and b.meta["val"].is_floating_point()
    return a, b if real and not node.kwargs else None  # type: ignore[return-value]
