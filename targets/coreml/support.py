"""What Core ML cannot take."""

from __future__ import annotations

from torch import Tensor

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import complex_values, odd_widths, whole_softmax

MAX_RANK = 5

_REFUSED = {
    "lstm": ("coremltools' export route has no LSTM", "give it padded, not packed, sequences"),
    "gru": ("coremltools' export route has no GRU", "give it padded, not packed, sequences"),
}
"""What the rewrites leave of them."""

_CUBIC = 2
"""As torch counts the modes of ``grid_sample``: bilinear, nearest, bicubic."""


def findings(program: Program) -> tuple[Finding, ...]:
    """Operators that the converter refuses, and tensors of more than five axes."""
    module = program.module()
    found: list[Finding] = []
    if not program.states:
        whole_softmax(module)
        found += odd_widths(program, module, "Core ML")
    found += complex_values(module, "coremltools' export route has")
    for node in g.float_ops(module):
        name = g.op_name(node)
        if name in _REFUSED:
            found.append(Finding(g.where(node), *_REFUSED[name]))
        if node.target is g.aten.grid_sampler.default and node.args[2] == _CUBIC:
            why = "Core ML has no cubic sampling at places"
            found.append(Finding(g.where(node), why, 'use mode="bilinear"'))
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.ndim > MAX_RANK:
            why = f"it has {value.ndim} axes, Core ML allows {MAX_RANK}"
            found.append(
                Finding(g.where(node), why, "compute with fewer; moves alone may have more")
            )
    return tuple(found)
