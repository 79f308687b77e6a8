"""Program → hls4ml layer list: every quantized operator becomes a layer, views become wires."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.program import Program
from edgemix.targets.hls4ml.emit import emitter
from edgemix.targets.hls4ml.firmware import Builder, Firmware, Value
from edgemix.targets.hls4ml.precision import needed


def build(program: Program) -> tuple[Firmware, Value]:
    """The layer list of a quantized program with one input and one output, and that output.

    Raises:
        UnsupportedError: a node has no layer (``supports`` finds these before).
    """
    builder = Builder(program.module())
    graph = builder.module.graph
    for node in graph.nodes:
        if node.op == "placeholder":
            builder.input(node)
        elif node.op == "call_function" and node.target in g.VIEW:
            builder.view(node)
        elif node.op == "call_function" and not g.is_quantize(node) and not g.is_dequantize(node):
            _operator(builder, node)
    (result,) = graph.find_nodes(op="output")
    (returned,) = result.args[0] if isinstance(result.args[0], (tuple, list)) else result.args
    value = builder.operand(returned)
    # The last layer's variable is the output: make it exactly the program's tensor.
    row_major = np.arange(value.index.size)
    return builder.firmware, builder.ordered(value, row_major, "output", force=True)


def _operator(builder: Builder, node: Node) -> None:
    module = builder.module
    encoding = g.produced_encoding(module, node)
    if encoding is None:
        return  # interior: the reader that is quantized computes it too
    anchor = clamped(node) or node
    fixed = needed(encoding, str(g.where(node)))
    emit = emitter(module, anchor)
    if emit is None:
        raise UnsupportedError("hls4ml has no layer for this operator", at=str(g.where(node)))
    value = emit(builder, anchor, encoding, fixed)
    builder.values[anchor] = builder.values[node] = value
    if anchor is not node and fixed.signed:
        # An unsigned result has clamped already; a signed one, shared with an addition, is
        # clamped after rounding, which is the same: rounding keeps the order and zero.
        clamp = emitter(module, node)
        assert clamp is not None
        builder.values[node] = clamp(builder, node, encoding, fixed)


def clamped(node: Node) -> Node | None:
    """The operator whose unquantized result a ReLU clamps, or None."""
    source = node.args[0] if node.target in g.CLAMP_AT_ZERO else None
    return source if isinstance(source, Node) and not g.is_dequantize(source) else None
