"""What Core AI cannot take."""

from __future__ import annotations

from edgemix import graph as g
from edgemix.program import Program
from edgemix.targets.base import Finding

_FOURIER = ("Core AI has no Fourier transform", "use a matrix product")
_SORT = ("Core AI's converter has no sort", "take topk where a few are enough")
_CRASH = ("Core AI's interpreter crashes on it", "write the new values with cat or where")
_STRIDES = ("Core AI's converter has no overlapping views", "use unfold of images, or slices")

_PLACES = ("Core AI's converter makes real numbers of its places", "use gather")

_REFUSED = {
    "sort": _SORT, "argsort": _SORT,
    "index_put": _CRASH, "index_put_": _CRASH,
    "as_strided": _STRIDES,
    "take_along_dim": _PLACES,
}  # fmt: skip


def findings(program: Program) -> tuple[Finding, ...]:
    """Operators that are refused; any width of integers and any number of axes is taken."""
    found = []
    for node in g.float_ops(program.shared):
        name = g.op_name(node)
        reason = _FOURIER if name.startswith("fft_") else _REFUSED.get(name)
        if reason is not None:
            found.append(Finding(g.where(node), *reason))
    return tuple(found)
