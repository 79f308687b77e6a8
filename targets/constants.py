"""The two other forms in which converters want a program's quantized constants."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g

_QUANTIZE = {
    torch.ops.quantized_decomposed.dequantize_per_tensor.default: (
        torch.ops.quantized_decomposed.quantize_per_tensor.default
    ),
    torch.ops.quantized_decomposed.dequantize_per_channel.default: (
        torch.ops.quantized_decomposed.quantize_per_channel.default
    ),
}


def real_biases(module: GraphModule) -> None:
    """int32 constant → dequantize becomes a float constant, in place: the values stay the same."""
    for node in _dequantized_constants(module):
        if node.args[-1] is torch.int32:
            g.make_constant(module, node, g.dequantized(module, node))


def real_constants(module: GraphModule) -> None:
    """int8 constant → dequantize becomes float constant → quantize → dequantize, in place.

    The float constant lies on the grid, so that quantizing it gives the same integers back.
    """
    for node in _dequantized_constants(module):
        if node.args[-1] is torch.int8:
            constant = _float_constant(module, node)
            with module.graph.inserting_before(node):
                target = _QUANTIZE[node.target]  # type: ignore[index]
                quantized = module.graph.call_function(target, (constant, *node.args[1:]))
            node.args = (quantized, *node.args[1:])


def _dequantized_constants(module: GraphModule) -> list[Node]:
    return [
        n
        for n in module.graph.nodes
        if g.is_dequantize(n) and isinstance(n.args[0], Node) and n.args[0].op == "get_attr"
    ]


def _float_constant(module: GraphModule, node: Node) -> Node:
    name = f"{node.name}_real"
    module.register_buffer(name, g.dequantized(module, node))
    with module.graph.inserting_before(node):
        return module.graph.get_attr(name)
