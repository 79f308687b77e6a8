"""What runtimes of phones have in common: whole kernels, and types of eight bits.

Composites that a recipe split into steps are put together again for runtimes with a kernel.

The kernel rounds differently than the steps do, by an LSB or two of the probabilities: the
contract of these targets counts that. FPGA firmware keeps the steps.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten, through_quantization
from edgemix.program import Program
from edgemix.targets.base import Finding


def whole_softmax(module: GraphModule) -> int:
    """max, subtract, exp, sum, reciprocal, product → softmax, in place; returns how many."""
    count = 0
    for node in list(module.graph.nodes):
        logits = _split_logits(node)
        if logits is None:
            continue
        total = through_quantization(through_quantization(node.args[1]).args[0])  # type: ignore[arg-type]
        (dim,) = total.args[1]  # type: ignore[misc,str-unpack]
        with module.graph.inserting_before(node):
            whole = module.graph.call_function(aten.softmax.int, (logits, dim))
        whole.meta = dict(node.meta)
        node.replace_all_uses_with(whole)
        count += 1
    if count:
        module.graph.eliminate_dead_code()
    return count


def odd_widths(program: Program, module: GraphModule, title: str) -> Iterator[Finding]:
    """Values of other than eight bits: the integer kernels of phones' runtimes have none."""
    odd = {}
    for node in module.graph.nodes:
        if g.is_quantize(node) and node.args[0].op != "get_attr":
            bits = g.encoding_of(module, node).bits
            if bits not in (_SPIKE, 8):
                odd[through_quantization(node)] = bits
    if odd:
        first = next(iter(odd))
        more = f"; so have {len(odd) - 1} other values" if len(odd) > 1 else ""
        why = f"it has {odd[first]} bits, {title}'s kernels have 8{more}"
        nearest = _NEAREST.get(program.recipe, "int8")
        yield Finding(g.where(first), why, f"quantize with the recipe {nearest}")


def grouped_weights(module: GraphModule, title: str) -> Iterator[Finding]:
    """Weights with a scale for every group of columns, where kernels have one for a channel."""
    grouped = [
        node
        for node in module.graph.nodes
        if g.is_dequantize(node) and g.encoding_of(module, node).group is not None
    ]
    if grouped:
        why = f"its weights have a scale for every group, {title} has one for a channel"
        remedy = 'set granularity = "per_channel" in the recipe\'s weights, or take ONNX'
        yield Finding(g.where(next(iter(grouped[0].users))), why, remedy)


def complex_values(module: GraphModule, why: str) -> Iterator[Finding]:
    """Complex values that the rewrites left: no integer and no runtime of phones has them."""
    for node in g.float_ops(module):
        if any(g.is_complex(value) for value in (node, *node.all_input_nodes)):
            remedy = "use transforms, sums, products, quotients and views, which become real ones"
            yield Finding(g.where(node), f"it is complex, and {why} no complex numbers", remedy)


_SPIKE = 1
"""Bits of a value that is 0 or 1: in eight it is the same."""
_NEAREST = {"w4a4": "w4a8", "fixed-auto": "fixed8"}
"""Recipes whose values have eight bits, for those whose values have not; int8 for others."""


def _split_logits(node: Node) -> Node | None:
    """The dequantized logits of a split softmax that ends in ``node``, or None."""
    power = g.normalized(node) if node.op == "call_function" else None
    if power is None or power.target is not aten.exp.default:
        return None
    shifted = through_quantization(_first(power))
    if shifted.target is not aten.sub.Tensor or not isinstance(shifted.args[1], Node):
        return None
    top = through_quantization(shifted.args[1])
    if top.target is not aten.amax.default:
        return None
    logits, source = _first(shifted), _first(top)
    return logits if through_quantization(source) is through_quantization(logits) else None


def _first(node: Node) -> Node:
    source = node.args[0]
    assert isinstance(source, Node)
    return source
