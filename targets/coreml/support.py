"""What Core ML cannot take."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding
from edgemix.targets.composites import grouped_weights, odd_widths, whole_softmax

MAX_RANK = 5

_REFUSED = {
    "fft_fft2": ("coremltools' export route has no Fourier transform", "use a matrix product"),
    "fft_rfft2": ("coremltools' export route has no Fourier transform", "use a matrix product"),
    "fft_irfft2": ("coremltools' export route has no Fourier transform", "use a matrix product"),
    "upsample_bicubic2d": ("coremltools has no bicubic resize", "resize bilinearly"),
    "lstm": ("coremltools' export route has no LSTM", "unroll it into its steps"),
    "gru": ("coremltools' export route has no GRU", "unroll it into its steps"),
}


def findings(program: Program) -> tuple[Finding, ...]:
    """Operators that the converter refuses, and tensors of more than five axes."""
    module = program.module()
    found = list(grouped_weights(module, "Core ML"))
    if not program.states:
        whole_softmax(module)
        found += odd_widths(program, module, "Core ML")
    for node in g.float_ops(module):
        name = g.op_name(node)
        if name in _REFUSED:
            found.append(Finding(g.where(node), *_REFUSED[name]))
        value = node.meta.get("val")
        if value is not None and getattr(value, "ndim", 0) > MAX_RANK:
            why = f"it has {value.ndim} axes, Core ML allows {MAX_RANK}"
            found.append(Finding(g.where(node), why, "reshape in two steps"))
    return tuple(found)
