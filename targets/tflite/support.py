"""What the TFLite converter cannot take, or leaves in float."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import complex_values, grouped_weights, odd_widths, whole_softmax

_NO_INTEGER = {
    "reciprocal": "TFLite divides in float",
    "erf": "TFLite has no integer error function",
}

_REFLECTION = 2
"""As torch counts the paddings of ``grid_sample``: zeros, border, reflection."""


def findings(program: Program) -> tuple[Finding, ...]:
    """Nodes that cannot be converted; in a quantized program also those without integer kernels."""
    module = program.module()
    if program.quantized and not program.encodings:
        why = "the converter keeps weights in float where values are"
        return (Finding(g.Where("program"), why, "quantize with the recipe int8"),)
    found = list(grouped_weights(module, "TFLite"))
    if not program.states:
        whole_softmax(module)
        found += list(odd_widths(program, module, "TFLite"))
    found += complex_values(module, "the converter has")
    for node in g.float_ops(module):
        name = g.op_name(node)
        if node.target is g.aten.grid_sampler.default and node.args[3] == _REFLECTION:
            why = "the converter has no reflected places"
            found.append(Finding(g.where(node), why, "use padding_mode border or zeros"))
        elif program.quantized and not program.states and name in _NO_INTEGER:
            remedy = "use a model with batch norm, or leave TFLite out"
            found.append(Finding(g.where(node), _NO_INTEGER[name], remedy))
    return tuple(found)
