"""What Core AI cannot take."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding

_FOURIER = ("Core AI has no Fourier transform", "use a matrix product")
_SORT = ("Core AI's converter has no sort", "take topk where a few are enough")
_CRASH = ("Core AI's interpreter crashes on it", "write the new values with cat or where")
_STRIDES = ("Core AI's converter has no overlapping views", "use unfold of images, or slices")

_REFUSED = {
    "fft_fft2": _FOURIER, "fft_rfft2": _FOURIER, "fft_irfft2": _FOURIER, "fft_fft": _FOURIER,
    "fft_ifft": _FOURIER, "fft_rfft": _FOURIER, "fft_irfft": _FOURIER, "fft_ifft2": _FOURIER,
    "sort": _SORT, "argsort": _SORT,
    "index_put": _CRASH, "index_put_": _CRASH,
    "unfold": _STRIDES, "as_strided": _STRIDES,
}  # fmt: skip


def findings(program: Program) -> tuple[Finding, ...]:
    """Operators that are refused; any width of integers and any number of axes is taken."""
    return tuple(
        Finding(g.where(node), *_REFUSED[g.op_name(node)])
        for node in g.float_ops(program.module())
        if g.op_name(node) in _REFUSED
    )
