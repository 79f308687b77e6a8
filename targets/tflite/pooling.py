"""Average pooling for TFLite, which can only average without rescaling.

AVERAGE_POOL_2D demands one scale for input and output; the converter enforces it by requantizing
the input to the output's scale, for every reader of that input. So a small pooling becomes what
it is, a constant linear map over positions, with one rounding; a large one is rescaled behind.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten

MAX_POSITIONS = 256
"""Above this, a map over positions costs more than the second rounding is worth."""

_QUANTIZE = torch.ops.quantized_decomposed.quantize_per_tensor.default
_DEQUANTIZE = torch.ops.quantized_decomposed.dequantize_per_tensor.default


def lower_pooling(module: GraphModule) -> None:
    """Replace every quantized average pooling, in place."""
    for node in list(module.graph.nodes):
        if node.target is not aten.avg_pool2d.default or not g.is_dequantize(node.args[0]):
            continue
        height, width = g.shape_of(node.args[0])[2:]
        if height * width <= MAX_POSITIONS:
            _as_linear(module, node)
        else:
            _rescale_behind(module, node)


def _as_linear(module: GraphModule, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    n, c, h, w = g.shape_of(source)
    weight = pooling_matrix(node, h, w)
    # Row i is 1 / (positions in window i) or 0: with a scale of its own, int8 holds it exactly.
    scales = weight.amax(1) / 127
    name = f"{node.name}_positions"
    for suffix, value in (
        ("", weight),
        ("_scales", scales),
        ("_zero_points", torch.zeros(len(scales), dtype=torch.int64)),
    ):
        module.register_buffer(name + suffix, value)
    graph = module.graph
    with graph.inserting_before(node):
        parts = [graph.get_attr(name + s) for s in ("", "_scales", "_zero_points")]
        more = (0, -127, 127, torch.int8)
        q = graph.call_function(
            torch.ops.quantized_decomposed.quantize_per_channel.default, (*parts, *more)
        )
        dq = graph.call_function(
            torch.ops.quantized_decomposed.dequantize_per_channel.default, (q, *parts[1:], *more)
        )
        flat = _moved(module, aten.reshape.default, source, [n, c, h * w], like=source)
        mixed = graph.call_function(aten.linear.default, (flat, dq))
    (quantize,) = node.users
    quantize.args = (mixed, *quantize.args[1:])
    for dequantize in list(quantize.users):
        _restore(module, dequantize, list(g.shape_of(node)))
    graph.erase_node(node)


def _restore(module: GraphModule, dequantize: Node, shape: list[int]) -> None:
    """Give the readers of a value its shape, between a dequantize and a quantize of its own."""
    graph = module.graph
    with graph.inserting_after(dequantize):
        restored = graph.call_function(aten.reshape.default, (dequantize, shape))
    dequantize.replace_all_uses_with(restored, lambda user: user is not restored)
    with graph.inserting_after(restored):
        again = graph.call_function(_QUANTIZE, (restored, *dequantize.args[1:]))
    with graph.inserting_after(again):
        final = graph.call_function(_DEQUANTIZE, (again, *dequantize.args[1:]))
    restored.replace_all_uses_with(final, lambda user: user is not again)


def _rescale_behind(module: GraphModule, node: Node) -> None:
    """avg_pool → quantize with the input's scale → dequantize, in front of its own quantize."""
    source = node.args[0]
    assert isinstance(source, Node)
    with module.graph.inserting_after(node):
        q = module.graph.call_function(_QUANTIZE, (node, *source.args[1:]))
    with module.graph.inserting_after(q):
        dq = module.graph.call_function(_DEQUANTIZE, (q, *source.args[1:]))
    node.replace_all_uses_with(dq, lambda user: user is not q)


def _moved(module: GraphModule, target: Any, value: Node, shape: list[int], *, like: Node) -> Node:
    """A view between a dequantize and a quantize of its own, as the converter wants it."""
    graph = module.graph
    view = graph.call_function(target, (value, shape))
    q = graph.call_function(_QUANTIZE, (view, *like.args[1:]))
    return graph.call_function(_DEQUANTIZE, (q, *like.args[1:]))


def pooling_matrix(node: Node, height: int, width: int) -> Tensor:
    """The pooling as a matrix [output positions, input positions]: its response to unit images."""
    units = torch.eye(height * width).reshape(-1, 1, height, width)
    response: Tensor = node.target(units, *node.args[1:], **node.kwargs)  # type: ignore[operator,misc]
    return response.reshape(height * width, -1).T.contiguous()
