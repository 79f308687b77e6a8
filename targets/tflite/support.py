"""What the TFLite converter cannot take, or leaves in float."""

from __future__ import annotations

from torch import Tensor

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import grouped_weights, odd_widths, whole_softmax

_REFUSED = {
    "grid_sampler_2d": ("TFLite has no grid_sample", "gather at rounded positions"),
}
_COMPLEX = (
    "it is complex, and the converter has no complex numbers",
    "use transforms, sums, products, quotients and views, which become real ones",
)
_NO_INTEGER = {
    "reciprocal": "TFLite divides in float",
    "erf": "TFLite has no integer error function",
}


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
    for node in g.float_ops(module):
        name = g.op_name(node)
        if name in _REFUSED:
            found.append(Finding(g.where(node), *_REFUSED[name]))
        elif isinstance(value := node.meta.get("val"), Tensor) and value.is_complex():
            found.append(Finding(g.where(node), *_COMPLEX))
        elif program.quantized and not program.states and name in _NO_INTEGER:
            remedy = "use a model with batch norm, or leave TFLite out"
            found.append(Finding(g.where(node), _NO_INTEGER[name], remedy))
    return tuple(found)
