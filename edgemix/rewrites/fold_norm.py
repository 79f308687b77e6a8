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
        norms = [n for n in module.graph.nodes if n.target is aten.batch_norm.default]
        for norm in norms:
            scale, shift = _affine(module, norm)
            source = norm.args[0]
            readers = list(norm.users)
            if source.target in g.LINEAR and len(source.users) == 1 and _channel_last(source):
                self._replace(module, source, scale, shift, into=source, axis=0)
                norm.replace_all_uses_with(source)
                module.graph.erase_node(norm)
            elif len(readers) == 1 and _takes_affine(readers[0], norm):
                self._replace(module, readers[0], scale, shift, into=readers[0], axis=1)
                norm.replace_all_uses_with(source)
                module.graph.erase_node(norm)
            elif len(g.shape_of(norm)) == 4:
                self._depthwise(module, norm, scale, shift)
        return len(norms)

    def _replace(
        self,
        module: GraphModule,
        node: Node,
        scale: Tensor,
        shift: Tensor,
        *,
        into: Node,
        axis: int,
    ) -> None:
        weight = g.constant(module, into.args[1])  # type: ignore[arg-type]
        bias = into.args[2] if len(into.args) > 2 else None
        old = g.constant(module, bias) if isinstance(bias, Node) else torch.zeros(weight.shape[0])
        if axis == 0:
            new_weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
            new_bias = old * scale + shift
        else:
            new_weight = weight * scale.reshape(1, -1, *[1] * (weight.ndim - 2))
            new_bias = old + (weight.flatten(2).sum(2) if weight.ndim > 2 else weight) @ shift
        weight_node = add_constant(module, into, f"{into.name}_weight", new_weight)
        bias_node = add_constant(module, into, f"{into.name}_bias", new_bias)
        into.args = (into.args[0], weight_node, bias_node, *into.args[3:])

    def _depthwise(self, module: GraphModule, norm: Node, scale: Tensor, shift: Tensor) -> None:
        channels = scale.numel()
        weight = add_constant(module, norm, f"{norm.name}_weight", scale.reshape(-1, 1, 1, 1))
        bias = add_constant(module, norm, f"{norm.name}_bias", shift)
        args = (norm.args[0], weight, bias, [1, 1], [0, 0], [1, 1], channels)
        with module.graph.inserting_before(norm):
            new = inherit(module.graph.call_function(aten.conv2d.default, args), norm, self.name)
        norm.replace_all_uses_with(new)
        module.graph.erase_node(norm)


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


def _channel_last(source: Node) -> bool:
    """Whether the operator's outputs are what the norm normalizes: axis 1 for a convolution."""
    return source.target in g.CONVOLUTION or len(g.shape_of(source)) == 2


def _takes_affine(reader: Node, norm: Node) -> bool:
    if reader.args[0] is not norm:
        return False
    if reader.target is aten.linear.default:
        return len(g.shape_of(norm)) == 2
    if reader.target not in g.CONVOLUTION:
        return False
    padding: Any = reader.args[4] if len(reader.args) > 4 else [0]
    groups: Any = reader.args[6] if len(reader.args) > 6 else 1
    return bool(groups == 1 and padding != "same" and not any(padding))
