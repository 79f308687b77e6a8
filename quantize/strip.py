"""The float twin of a quantized program: the same operators, nothing rounded between them."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program, Step


def strip(program: Program) -> Program:
    """The program without quantize and dequantize nodes; weights are what their integers stand for.

    What it computes is what the quantized program would without the rounding of activations: the
    reference for a model that comes quantized, of which nobody has the float weights.
    """
    module = program.module()
    for node in [n for n in module.graph.nodes if g.is_dequantize(n)]:
        if g.is_constant(node):
            g.make_constant(module, node, g.dequantized(module, node))
            continue
        # Nodes stand in order: what was quantized is real by now, also if it was rounded before.
        (quantize,) = node.all_input_nodes
        node.replace_all_uses_with(quantize.args[0], propagate_meta=False)
        module.graph.erase_node(node)
    module.graph.eliminate_dead_code()
    return program.with_module(module, Step("strip"))
