"""What Core ML cannot take."""

from __future__ import annotations

from torch import Tensor

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import odd_widths, whole_softmax

MAX_RANK = 5

_REFUSED = {
    "lstm": ("coremltools' export route has no LSTM", "give it padded, not packed, sequences"),
    "gru": ("coremltools' export route has no GRU", "give it padded, not packed, sequences"),
}
"""What the rewrites leave of them."""
_COMPLEX = (
    "it is complex, and coremltools' export route has no complex numbers",
    "use transforms, sums, products, quotients and views, which become real ones",
)


def findings(program: Program) -> tuple[Finding, ...]:
    """Operators that the converter refuses, and tensors of more than five axes."""
    module = program.module()
    found: list[Finding] = []
    if not program.states:
        whole_softmax(module)
        found += odd_widths(program, module, "Core ML")
    for node in g.float_ops(module):
        name = g.op_name(node)
        if name in _REFUSED:
            found.append(Finding(g.where(node), *_REFUSED[name]))
        value = node.meta.get("val")
        if isinstance(value, Tensor) and value.is_complex():
            found.append(Finding(g.where(node), *_COMPLEX))
        if isinstance(value, Tensor) and value.ndim > MAX_RANK:
            why = f"it has {value.ndim} axes, Core ML allows {MAX_RANK}"
            found.append(
                Finding(g.where(node), why, "compute with fewer; moves alone may have more")
            )
    return tuple(found)
