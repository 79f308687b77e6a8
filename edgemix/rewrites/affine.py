"""A per-channel map a·x + b, folded into the linear operator behind or in front of it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def scale_outputs(module: GraphModule, into: Node, scale: Tensor, shift: Tensor) -> None:
    """A · (W x + c) + b."""
    weight, bias = _weight_and_bias(module, into)
    scaled = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    _set_weight_and_bias(module, into, scaled, bias * scale + shift)


def scale_inputs(module: GraphModule, into: Node, scale: Tensor, shift: Tensor) -> None:
    """W (a · x + b) + c."""
    weight, bias = _weight_and_bias(module, into)
    scaled = weight * scale.reshape(1, -1, *[1] * (weight.ndim - 2))
    summed = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    _set_weight_and_bias(module, into, scaled, bias + summed @ shift)


def _weight_and_bias(module: GraphModule, node: Node) -> tuple[Tensor, Tensor]:
    weight = g.constant(module, node.args[1])  # type: ignore[arg-type]
    bias = node.args[2] if len(node.args) > 2 else None
    if isinstance(bias, Node):
        return weight, g.constant(module, bias)
    return weight, torch.zeros(weight.shape[0])


def _set_weight_and_bias(module: GraphModule, node: Node, weight: Tensor, bias: Tensor) -> None:
    # New constants: the old ones may serve another operator too.
    weight_node = g.add_constant(module, node, f"{node.name}_weight", weight)
    bias_node = g.add_constant(module, node, f"{node.name}_bias", bias)
    node.args = (node.args[0], weight_node, bias_node, *node.args[3:])


def gives_affine(source: Node) -> bool:
    """Whether a norm's only source is a linear operator whose outputs lie on the norm's axis."""
    if source.target not in g.LINEAR or len(source.users) != 1 or not _is_constant(source.args[1]):
        return False
    return source.target in g.CONVOLUTION or len(g.shape_of(source)) == 2


def _is_constant(weight: Any) -> bool:
    return isinstance(weight, Node) and weight.op == "get_attr"


def takes_affine(reader: Node, norm: Node, axis: int) -> bool:
    """Whether a reader of a norm is a linear operator that mixes along the norm's ``axis``."""
    if reader.args[0] is not norm or reader.target not in g.LINEAR:
        return False
    if not _is_constant(reader.args[1]):
        return False
    if reader.target is aten.linear.default:
        return axis == len(g.shape_of(norm)) - 1
    padding: Any = reader.args[4] if len(reader.args) > 4 else [0]
    groups: Any = reader.args[6] if len(reader.args) > 6 else 1
    return bool(axis == 1 and groups == 1 and padding != "same" and not any(padding))
