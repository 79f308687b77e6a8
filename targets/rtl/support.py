"""What RTL cannot take; needs no da4ml."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.fpga import dataflow, support, tables

MAX_MULTIPLY_ACCUMULATES = 200_000
"""Every one becomes logic of its own; Verilator and Yosys take hours not far above."""

AVERAGING = frozenset(
    {
        aten.mean.dim, aten.avg_pool2d.default, aten.avg_pool1d.default,
        aten.adaptive_avg_pool2d.default, aten.adaptive_avg_pool1d.default,
    }
)  # fmt: skip
OPERATORS = AVERAGING | g.QUANTIZE | {
    aten.linear.default, aten.conv1d.default, aten.conv2d.default, aten.add.Tensor,
    aten.sub.Tensor, aten.mul.Tensor, aten.relu.default, aten.matmul.default, aten.bmm.default,
    aten.sum.dim_IntList, aten.amax.default, aten.max_pool2d.default, aten.max_pool1d.default,
    aten.cat.default,
}  # fmt: skip
"""Operators with logic of their own; a test compares the list with the tracer's."""


def findings(program: Program) -> tuple[Finding, ...]:
    """Nodes that become no logic."""
    return support.findings(program, takes, "RTL", MAX_MULTIPLY_ACCUMULATES)


def takes(module: GraphModule, node: Node) -> bool:
    """Whether there is logic for an operator."""
    if g.is_spike(node):
        return dataflow.threshold(module, node) is not None
    if node.target in g.CONVOLUTION:
        return g.shape_of(node)[0] == 1 and not any(isinstance(a, str) for a in node.args)
    return node.target in OPERATORS or tables.is_scalar_function(module, node)
