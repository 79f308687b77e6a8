"""Which function writes the layer of an operator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga import dataflow, tables
from edgemix.targets.hls4ml import kernels, native, streams
from edgemix.targets.hls4ml.firmware import Builder, Value

Emit = Callable[[Builder, Node, Encoding, FixedPoint], Value]

EMITTERS: dict[Any, Emit] = {
    aten.linear.default: native.linear,
    aten.add.Tensor: native.merge,
    aten.sub.Tensor: native.merge,
    aten.mul.Tensor: native.merge,
    aten.matmul.default: kernels.matmul,
    aten.bmm.default: kernels.matmul,
    aten.mean.dim: kernels.mean,
    aten.avg_pool1d.default: kernels.mean,
    aten.avg_pool2d.default: kernels.mean,
    aten.adaptive_avg_pool1d.default: kernels.mean,
    aten.adaptive_avg_pool2d.default: kernels.mean,
    aten.sum.dim_IntList: kernels.total,
    aten.amax.default: kernels.maximum,
    aten.max_pool1d.default: kernels.maximum,
    aten.max_pool2d.default: kernels.maximum,
    aten.cat.default: kernels.concatenation,
}
"""Each appends its layer and returns its value."""


def emitter(module: GraphModule, node: Node, *, streaming: bool = False) -> Emit | None:
    """The function that writes a node's layer, or None where there is none."""
    if streaming and streams.takes(node):
        return streams.pooling
    if g.is_quantize(node):
        return kernels.rounding
    if g.is_spike(node):
        return kernels.spike if dataflow.threshold(module, node) is not None else None
    if node.target in g.CONVOLUTION:
        return native.convolution if native.takes_convolution(node) else None
    if tables.is_table(module, node):
        return kernels.scalar_function
    constants = [tables.constant_root(a) is not None for a in node.all_input_nodes]
    if node.target is aten.cat.default and any(constants) and constants.count(False) != 1:
        return None
    if node.target in (aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor) and any(constants):
        return kernels.with_constant
    if node.target is aten.matmul.default and constants == [False, True]:
        return native.constant_matmul if len(g.shape_of(node.args[1])) == 2 else None  # type: ignore[arg-type]
    return EMITTERS.get(node.target)
