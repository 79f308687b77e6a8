"""What the firmware cannot take, said before anything is generated."""

from __future__ import annotations

import math

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import Where
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.hls4ml.emit import emitter
from edgemix.targets.hls4ml.lower import clamped

MAX_MULTIPLY_ACCUMULATES = 4_000_000
"""io_parallel gives every one of them a place in the fabric; far fewer fit a real part, and the
compiler runs out of memory not far above."""


MAX_NORMALIZED_SUM = 1 << 15
"""Up to here float32 rounds x / sum(x) to eight bits as exact division does, see
:class:`edgemix.rewrites.split_softmax.SplitSoftmax`; beyond, the two may differ by an LSB."""


def findings(program: Program) -> tuple[Finding, ...]:
    """Nodes without a layer, values that are no fixed point, and a model too large to unroll."""
    if not program.quantized:
        return (
            Finding(
                Where("program"),
                "firmware computes in fixed point",
                "quantize with the recipe fixed8",
            ),
        )
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        return (Finding(Where("program"), "firmware takes one input and one output", "merge them"),)
    module = program.module()
    found: list[Finding] = []
    for node in module.graph.nodes:
        found.extend(_refusals(module, node))
    total = sum(_multiplies(node) for node in module.graph.nodes)
    if total > MAX_MULTIPLY_ACCUMULATES:
        limit = f"{MAX_MULTIPLY_ACCUMULATES:,}"
        why = f"unrolled it needs {total:,} multiply-accumulates, {limit} are the limit"
        found.append(Finding(Where("program"), why, "make the model or its input smaller"))
    return tuple(found)


def _refusals(module: GraphModule, node: Node) -> list[Finding]:
    if node.op == "call_function" and g.is_quantize(node):
        return _not_fixed(module, node)
    if node.op == "placeholder" and g.produced_encoding(module, node) is None:
        return [Finding(g.where(node), "it is not quantized", "quantize with the recipe fixed8")]
    if node.op != "call_function" or g.is_dequantize(node) or node.target in g.VIEW:
        return []
    if _interior(node):
        return []
    anchor = clamped(node) or node
    if emitter(module, anchor) is None:
        return [
            Finding(
                g.where(node), f"hls4ml has no layer for {g.op_name(node)}", "use another operator"
            )
        ]
    if g.is_normalization(node) and _largest_sum(module, node) >= MAX_NORMALIZED_SUM:
        why = f"its sum can reach {_largest_sum(module, node):,}: float32 no longer divides exactly"
        return [Finding(g.where(node), why, "normalize over at most 128 values")]
    if g.produced_encoding(module, node) is None:
        return [
            Finding(g.where(node), "its result is not quantized", "quantize with the recipe fixed8")
        ]
    return []


def _not_fixed(module: GraphModule, node: Node) -> list[Finding]:
    encoding = g.encoding_of(module, node)
    source = g.through_quantization(node)
    if source.op == "get_attr" or encoding.fixed_point() is not None:
        return []
    why = f"its scale {encoding.scale[0]:.6g} is no power of two"
    return [Finding(g.where(source), why, "quantize with the recipe fixed8")]


def _interior(node: Node) -> bool:
    """Whether the node's only reader computes it too: a clamped sum, the sum of a normalization."""
    readers = list(node.users)
    if len(readers) != 1:
        return False
    fused = node.target in g.LINEAR | g.ADDITION and readers[0].target in g.CLAMP_AT_ZERO
    return fused or (node.target is g.aten.sum.dim_IntList and g.is_normalization(readers[0]))


def _largest_sum(module: GraphModule, node: Node) -> int:
    """The largest sum of integers that a normalization divides by."""
    total = node.args[1]
    assert isinstance(total, Node)
    length = math.prod(g.shape_of(node)) // math.prod(g.shape_of(total))
    dividend = g.through_quantization(node.args[0])  # type: ignore[arg-type]
    encoding = g.produced_encoding(module, dividend)
    return length * ((1 << (encoding.bits if encoding else 8)) - 1)


def _multiplies(node: Node) -> int:
    if node.target in g.LINEAR:
        weight = g.shape_of(node.args[1])  # type: ignore[arg-type]
        positions = math.prod(g.shape_of(node)) // weight[0]
        return positions * math.prod(weight)
    if node.target in (g.aten.matmul.default, g.aten.bmm.default):
        return math.prod(g.shape_of(node)) * g.shape_of(node.args[0])[-1]  # type: ignore[arg-type]
    return 0
