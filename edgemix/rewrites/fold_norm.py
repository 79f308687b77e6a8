"""Batch normalization → into the operator beside it, or a depthwise 1×1 convolution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.base import add_constant, inherit


@dataclass(frozen=True)
class FoldNorm:
    """Fold every evaluation-mode batch norm y = a·x + b (per channel).

    Backward, where the norm is the only reader of a convolution or linear::

        conv(W, c) ─▶ norm          becomes   conv(a·W, a·c + b)

    Forward, where its only reader is an unpadded convolution (one group) or a linear::

        norm ─▶ conv(W, c)          becomes   conv(W·a, c + Σ W·b)

    Otherwise, on an image [n, c, h, w], a depthwise 1×1 convolution with weight a and bias b: one
    rounding on every target.
    """

    name: ClassVar[str] = "fold_norm"

    def apply(self, module: GraphModule) -> int:
        """Fold them all; returns how many there were."""
        count = 0
        for norm in module.graph.find_nodes(op="call_function", target=aten.batch_norm.default):
            scale, shift = _affine(module, norm)
            source, readers = norm.args[0], list(norm.users)
            if _gives_affine(source):
                _scale_outputs(module, source, scale, shift)
            elif len(readers) == 1 and _takes_affine(readers[0], norm):
                _scale_inputs(module, readers[0], scale, shift)
            elif len(g.shape_of(norm)) == 4:
                source = _depthwise(module, norm, scale, shift, self.name)
            else:
                continue
            norm.replace_all_uses_with(source)
            module.graph.erase_node(norm)
            count += 1
        return count


def _scale_outputs(module: GraphModule, into: Node, scale: Tensor, shift: Tensor) -> None:
    """A · (W x + c) + b."""
    weight, bias = _weight_and_bias(module, into)
    scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    _set_weight_and_bias(module, into, scaled, bias * scale + shift)


def _scale_inputs(module: GraphModule, into: Node, scale: Tensor, shift: Tensor) -> None:
    """W (a · x + b) + c."""
    weight, bias = _weight_and_bias(module, into)
    scaled = weight * scale.reshape(1, -1, *[1] * (weight.ndim - 2))
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    _set_weight_and_bias(module, into, scaled, bias + summed @ shift)


def _depthwise(module: GraphModule, norm: Node, scale: Tensor, shift: Tensor, name: str) -> Node:
    weight = add_constant(module, norm, f"{norm.name}_weight", scale.reshape(-1, 1, 1, 1))
    bias = add_constant(module, norm, f"{norm.name}_bias", shift)
    args = (norm.args[0], weight, bias, [1, 1], [0, 0], [1, 1], scale.numel())
    with module.graph.inserting_before(norm):
        return inherit(module.graph.call_function(aten.conv2d.default, args), norm, name)


def _weight_and_bias(module: GraphModule, node: Node) -> tuple[Tensor, Tensor]:
    weight = g.constant(module, node.args[1])  # type: ignore[arg-type]
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, Node):
        return weight, g.constant(module, bias)
    return weight, torch.zeros(weight.shape[0])


def _set_weight_and_bias(module: GraphModule, node: Node, weight: Tensor, bias: Tensor) -> None:
    # New constants: the old ones may serve another operator too.
    weight_node = add_constant(module, node, f"{node.name}_weight", weight)
    bias_node = add_constant(module, node, f"{node.name}_bias", bias)
    node.args = (node.args[0], weight_node, bias_node, *node.args[3:])


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


def _gives_affine(source: Node) -> bool:
    """Whether a norm's only source is a linear operator whose outputs lie on the norm's axis."""
    if source.target not in g.LINEAR or len(source.users) != 1 or not _is_constant(source.args[1]):
        return False
    return source.target in g.CONVOLUTION or len(g.shape_of(source)) == 2


def _is_constant(weight: Any) -> bool:
    return isinstance(weight, Node) and weight.op == "get_attr"


def _takes_affine(reader: Node, norm: Node) -> bool:
    if reader.args[0] is not norm or reader.target not in g.LINEAR:
        return False
    if not _is_constant(reader.args[1]):
        return False
    if reader.target is aten.linear.default:
        return len(g.shape_of(norm)) == 2
    padding: Any = reader.args[4] if len(reader.args) > 4 else [0]
    groups: Any = reader.args[6] if len(reader.args) > 6 else 1
    return bool(groups == 1 and padding != "same" and not any(padding))
