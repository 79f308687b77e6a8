"""What neither firmware nor RTL can take, said before anything is generated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import Where
from edgemix.program import Program
from edgemix.targets.base import Finding

_REMEDY = "quantize with the recipe fixed8"


def findings(
    program: Program, takes: Callable[[GraphModule, Node], bool], title: str, most: int
) -> tuple[Finding, ...]:
    """Nodes without logic, values that are no fixed point, and a model too large to unroll.

    Args:
        program: what to lower.
        takes: whether the target has an operator for a node.
        title: the target's name, for messages.
        most: multiply-accumulates that the target unrolls at most.
    """
    if not program.encodings:
        return (Finding(Where("program"), "firmware computes in fixed point", _REMEDY),)
    if len(program.inputs) != 1 or len(program.outputs) != 1:
        why = "firmware takes one input and one output beside its states"
        return (Finding(Where("program"), why, "merge them"),)
    if program.inputs[0].shape[0] != 1:
        why = f"it takes {program.inputs[0].shape[0]} samples at once, firmware takes one"
        return (Finding(Where("program"), why, "export the model with batch 1"),)
    module = program.shared
    found: list[Finding] = list(_not_fixed(module))
    for node in module.graph.nodes:
        found.extend(_refusals(module, node, takes, title))
    work = {node: multiplies(node) for node in module.graph.nodes}
    total = sum(work.values())
    if total > most:
        largest = max(work, key=lambda n: work[n])
        why = (
            f"unrolled it needs {total:,} multiply-accumulates, {most:,} are the limit; "
            f"most in {g.where(largest)}: {work[largest]:,}"
        )
        found.append(Finding(Where("program"), why, "make the model or its input smaller"))
    return tuple(found)


def multiplies(node: Node) -> int:
    """Multiply-accumulates of one operator."""
    if node.target in g.LINEAR:
        weight = g.shape_of(node.args[1])  # type: ignore[arg-type]
        return math.prod(g.shape_of(node)) // weight[0] * math.prod(weight)
    if node.target in (g.aten.matmul.default, g.aten.bmm.default):
        return math.prod(g.shape_of(node)) * g.shape_of(node.args[0])[-1]  # type: ignore[arg-type]
    return 0


def _refusals(
    module: GraphModule, node: Node, takes: Callable[[GraphModule, Node], bool], title: str
) -> list[Finding]:
    if node.op == "call_function" and g.is_quantize(node):
        return []
    if node.op == "placeholder" and g.produced_encoding(module, node) is None:
        return [Finding(g.where(node), "it is not quantized", _REMEDY)]
    if node.op != "call_function" or g.is_dequantize(node) or node.target in g.VIEW:
        return []
    if g.exact_between(node) or (node.target in g.COMPARISON and all(map(g.is_spike, node.users))):
        return []
    if not takes(module, node):
        why = f"{title} has no layer for {g.op_name(node)}"
        return [Finding(g.where(node), why, "use another operator")]
    if g.produced_encoding(module, node) is None:
        return [Finding(g.where(node), "its result is not quantized", _REMEDY)]
    return []


def _not_fixed(module: GraphModule) -> Iterator[Finding]:
    """One finding for all: whoever chose a recipe of free scales chose it for every value."""
    odd = {}
    for node in module.graph.nodes:
        if g.is_quantize(node) and node.args[0].op != "get_attr":
            encoding = g.encoding_of(module, node)
            if encoding.fixed_point() is None:
                odd[g.through_quantization(node)] = encoding.scale[0]
    if odd:
        first = next(iter(odd))
        more = f", nor are those of {len(odd) - 1} other values" if len(odd) > 1 else ""
        yield Finding(
            g.where(first), f"its scale {odd[first]:.6g} is no power of two{more}", _REMEDY
        )
