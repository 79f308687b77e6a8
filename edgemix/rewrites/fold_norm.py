"""Batch normalization → into the operator beside it, or a depthwise 1×1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.affine import gives_affine, scale_inputs, scale_outputs, takes_affine
from edgemix.rewrites.base import inherit
from edgemix.seams import moved_axis, output_axis


@dataclass(frozen=True)
class FoldNorm:
    """Fold every evaluation-mode batch norm y = a·x + b (per channel).

    Backward, where the norm is the only reader of a convolution or linear::

        conv(W, c) ─▶ norm          becomes   conv(a·W, a·c + b)

    Forward, where its only reader is an unpadded convolution (one group) or a linear::

        norm ─▶ conv(W, c)          becomes   conv(W·a, c + Σ W·b)

    Otherwise, on an image [n, c, h, w] or a row [n, c, w], a depthwise convolution of one position
    with weight a and bias b: one rounding on every target.
    """

    name: ClassVar[str] = "fold_norm"

    def apply(self, module: GraphModule) -> int:
        """Fold them all; returns how many there were."""
        count = 0
        for norm in module.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
            scale, shift = _affine(module, norm)
            source, readers = norm.args[0], list(norm.users)
            computed = _past_positions(source)
            if not gives_affine(computed):
                computed = _behind_views(source)
            if computed is not None:
                scale_outputs(module, computed, scale, shift)
            elif len(readers) == 1 and takes_affine(readers[0], norm, 1):
                scale_inputs(module, readers[0], scale, shift)
            elif len(g.shape_of(norm)) in (3, 4):
                source = _depthwise(module, norm, scale, shift, self.name)
            else:
                continue
            norm.replace_all_uses_with(source)
            module.graph.erase_node(norm)
            count += 1
        return count


def _behind_views(node: Any) -> Node | None:
    """A linear operator whose channels views alone move to the norm's axis, or None."""
    views: list[Node] = []
    while node.target in g.REORDERING and len(node.users) == 1:
        views.append(node)
        node = node.args[0]
    axis = output_axis(node) if node.target in g.LINEAR and len(node.users) == 1 else None
    for view in reversed(views):
        axis = None if axis is None else moved_axis(view, axis)
    return node if axis == 1 else None


def _past_positions(node: Any) -> Any:
    """What computes the values, where ``node`` only picks one of its positions per channel."""
    picks = (aten.select.int, aten.squeeze.dim)
    while node.target in picks and len(node.users) == 1 and node.args[1] > 1:
        node = node.args[0]
    return node


def _depthwise(module: GraphModule, norm: Node, scale: Tensor, shift: Tensor, name: str) -> Node:
    axes = len(g.shape_of(norm)) - 2
    kernel = scale.reshape(-1, 1, *[1] * axes)
    weight = g.add_constant(module, norm, f"{norm.name}_weight", kernel)
    bias = g.add_constant(module, norm, f"{norm.name}_bias", shift)
    args = (norm.args[0], weight, bias, [1] * axes, [0] * axes, [1] * axes, scale.numel())
    target = aten.conv1d.default if axes == 1 else aten.conv2d.default
    with module.graph.inserting_before(norm):
        return inherit(module.graph.call_function(target, args), norm, name)


def _affine(module: GraphModule, norm: Node) -> tuple[Tensor, Tensor]:
    """Scale and shift per channel (float32, computed in float64)."""
    _, weight, bias, mean, variance = norm.args[:5]
    epsilon: Any = norm.args[7]
    assert isinstance(mean, Node) and isinstance(variance, Node)
    centre, spread = g.constant(module, mean).double(), g.constant(module, variance).double()
    scale = torch.rsqrt(spread + epsilon)
    if isinstance(weight, Node):
        scale = scale * g.constant(module, weight)
    shift = -centre * scale
    if isinstance(bias, Node):
        shift = shift + g.constant(module, bias)
    return scale.float(), shift.float()
