"""Quantizing as float arithmetic, for runtimes without the integer type: the same values."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def wide_grids(module: GraphModule) -> None:
    """Everything of other than eight bits, in place: see :func:`on_grid`."""
    for node in list(module.graph.nodes):
        if g.is_quantize(node) and node.args[0].op != "get_attr":
            if g.encoding_of(module, node).bits != 8:
                on_grid(module, node)


def on_grid(module: GraphModule, quantize: Node) -> None:
    """Quantize → dequantize as float arithmetic: the same rounding, the same limits."""
    encoding = g.encoding_of(module, quantize)
    scale, zero = encoding.scale[0], encoding.zero_point[0]
    graph = module.graph
    value: Any = quantize.args[0]
    with graph.inserting_before(quantize):
        if not g.is_spike(value):
            steps = graph.call_function(aten.mul.Tensor, (value, 1.0 / scale))
            whole = graph.call_function(aten.round.default, (steps,))
            limits = (float(encoding.qmin - zero), float(encoding.qmax - zero))
            limited = graph.call_function(aten.clamp.default, (whole, *limits))
            value = graph.call_function(aten.mul.Tensor, (limited, scale))
    for dequantize in list(quantize.users):
        dequantize.replace_all_uses_with(value, propagate_meta=False)
        graph.erase_node(dequantize)
    graph.erase_node(quantize)
