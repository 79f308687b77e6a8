"""LayerNorm, GroupNorm, RMSNorm → mean, subtract, mean of squares, rsqrt, product, affine map."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.affine import scale_inputs, takes_affine
from edgemix.rewrites.base import step


@dataclass(frozen=True)
class SplitNorm:
    """Split every layer norm, group norm and root mean square norm.

    Before::

        x ─▶ layer_norm(shape, γ, β, ε) ─▶ y

    After::

        x ─┬────────▶ sub ─┬─────────────────────────────────────────▶ mul ─▶ · γ + β ─▶ y
           └─▶ mean ───┘   └─▶ square ─▶ mean ─▶ add ε ─▶ rsqrt ──────┘

    without the mean and its difference for an RMSNorm, which has no β either. γ and β go into the
    linear operators behind where these are the only readers. Once quantized, means and products of
    integers are exact and rsqrt is a table. Ba, Kiros and Hinton, "Layer Normalization", 2016; Wu
    and He, "Group Normalization", ECCV 2018; Zhang and Sennrich, "Root Mean Square Layer
    Normalization", NeurIPS 2019.
    """

    name: ClassVar[str] = "split_norm"

    def apply(self, module: GraphModule) -> int:
        """Split them all; returns how many there were."""
        nodes = module.graph.nodes
        layer = [n for n in nodes if n.target is aten.layer_norm.default]
        group = [n for n in nodes if n.target is aten.group_norm.default]
        square = [n for n in nodes if n.target is aten.rms_norm.default]
        for node in layer:
            x, shape, gamma, beta, epsilon = _arguments(node)
            axes = list(range(-len(shape), 0))
            affine = _Affine(gamma, beta, _last(node, axes), tuple(shape))
            _replace(module, node, x, axes, affine, epsilon, self.name)
        for node in group:
            _split_group(module, node, self.name)
        for node in square:
            _split_square(module, node, self.name)
        return len(layer) + len(group) + len(square)


@dataclass(frozen=True)
class _Affine:
    """γ and β as the norm has them, and how they lie in its result."""

    gamma: Any
    beta: Any
    axis: int | None
    """The axis that they run along, None where it is more than one."""
    shape: tuple[int, ...]
    """The shape in which they broadcast."""


def _arguments(node: Node) -> tuple[Any, Any, Any, Any, float]:
    given: list[Any] = list(node.args[:5])
    defaults: list[Any] = [None, None, None, None, 1e-5]
    x, over, gamma, beta, epsilon = given + defaults[len(given) :]
    return x, over, gamma, beta, float(epsilon)


def _last(node: Node, axes: list[int]) -> int | None:
    """The axis that γ and β run along where the norm is over one axis."""
    return len(g.shape_of(node)) - 1 if len(axes) == 1 else None


def _split_square(module: GraphModule, node: Node, name: str) -> None:
    given: list[Any] = list(node.args)
    x, shape, gamma, epsilon = given + [None] * (4 - len(given))
    if epsilon is None:
        epsilon = torch.finfo(x.meta["val"].dtype).eps
    axes = list(range(-len(shape), 0))
    with module.graph.inserting_before(node):
        result = _scaled(node, x, axes, float(epsilon), name)
    _finish(module, node, result, _Affine(gamma, None, _last(node, axes), tuple(shape)), name)


def _split_group(module: GraphModule, node: Node, name: str) -> None:
    x, groups, gamma, beta, epsilon = _arguments(node)
    shape = g.shape_of(x)
    whole = [shape[0], int(groups), math.prod(shape[1:]) // int(groups)]
    affine = _Affine(gamma, beta, 1, (-1, *[1] * (len(shape) - 2)))
    if groups == 1:
        axes = list(range(1, len(shape)))
        _replace(module, node, x, axes, affine, epsilon, name)
        return
    with module.graph.inserting_before(node):
        grouped = step(node, name, aten.reshape.default, x, whole)
        result = _normalized(node, grouped, [-1], epsilon, name)
        back = step(node, name, aten.reshape.default, result, list(shape))
    _finish(module, node, back, affine, name)


def _replace(
    module: GraphModule, node: Node, x: Any, axes: list[int], affine: _Affine, epsilon: float,
    name: str,
) -> None:  # fmt: skip
    with module.graph.inserting_before(node):
        result = _normalized(node, x, axes, epsilon, name)
    _finish(module, node, result, affine, name)


def _normalized(node: Node, x: Node, axes: list[int], epsilon: float, name: str) -> Node:
    centre = step(node, name, aten.mean.dim, x, axes, True)
    return _scaled(node, step(node, name, aten.sub.Tensor, x, centre), axes, epsilon, name)


def _scaled(node: Node, centred: Node, axes: list[int], epsilon: float, name: str) -> Node:
    """A centred tensor over the root of its mean square."""
    squares = step(node, name, aten.mul.Tensor, centred, centred)
    variance = step(node, name, aten.mean.dim, squares, axes, True)
    safe = step(node, name, aten.add.Tensor, variance, epsilon)
    inverse = step(node, name, aten.rsqrt.default, safe)
    return step(node, name, aten.mul.Tensor, centred, inverse)


def _finish(module: GraphModule, node: Node, result: Node, affine: _Affine, name: str) -> None:
    scale = g.constant(module, affine.gamma) if isinstance(affine.gamma, Node) else None
    shift = g.constant(module, affine.beta) if isinstance(affine.beta, Node) else None
    readers = list(node.users)
    axis = affine.axis
    if scale is not None and axis is not None and all(takes_affine(r, node, axis) for r in readers):
        zero = scale.new_zeros(scale.shape) if shift is None else shift
        node.replace_all_uses_with(result)
        for reader in readers:
            scale_inputs(module, reader, scale, zero)
    else:
        for target, value in ((aten.mul.Tensor, scale), (aten.add.Tensor, shift)):
            if value is not None:
                result = _with_constant(module, node, result, target, value, affine.shape, name)
        node.replace_all_uses_with(result)
    module.graph.erase_node(node)


def _with_constant(
    module: GraphModule, node: Node, x: Node, target: Any, value: Tensor,
    shape: tuple[int, ...], name: str,
) -> Node:  # fmt: skip
    shaped = value.reshape(shape).clone()
    constant = g.add_constant(module, node, f"{node.name}_affine", shaped)
    with module.graph.inserting_before(node):
        return step(node, name, target, x, constant)
