"""Padding with −∞ in front of a max pooling → the pooling's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class ImplicitPads:
    """``max_pool2d(pad(x, −∞))`` → ``max_pool2d(x)`` with windows that reach over the edge.

    TensorFlow's "same" padding comes as such a pair. No grid of integers holds −∞, and no range
    that calibration finds would be of use.
    """

    name: ClassVar[str] = "implicit_pads"

    def apply(self, module: GraphModule) -> int:
        """Rewrite all that a symmetric padding and a rounding of sizes can say; how many."""
        count = 0
        for node in module.graph.find_nodes(op="call_function", target=aten.max_pool2d.default):
            pad = node.args[0]
            assert isinstance(pad, Node)
            windows = _windows(node, pad)
            if windows is not None:
                write = Writer(module, node, self.name)
                write.replace(write(aten.max_pool2d.default, pad.args[0], *windows))
                count += 1
        return count


def _windows(node: Node, pad: Node) -> tuple[Any, ...] | None:
    """The arguments of the same pooling without the padding in front of it."""
    if pad.target not in (aten.pad.default, aten.constant_pad_nd.default):
        return None
    given: list[Any] = [*node.args[1:], *(None, 0, 1, False)[len(node.args) - 2 :]]
    kernel, stride, padding, dilation, _ = given
    kernel, stride, padding, dilation = (
        g.pair(v) for v in (kernel, stride if stride else kernel, padding, dilation)
    )
    amounts: Any = pad.args[1]
    if pad.args[-1] != -math.inf or len(amounts) != 4 or any(padding) or dilation != (1, 1):
        return None
    if g.shape_of(node)[2:] != _sizes(g.shape_of(pad)[2:], kernel, stride, ceil=False):
        return None
    before = (amounts[2], amounts[0])
    if any(b < 0 or 2 * b > k for b, k in zip(before, kernel, strict=True)):
        return None
    inside = [s + 2 * b for s, b in zip(g.shape_of(pad.args[0])[2:], before, strict=True)]  # type: ignore[arg-type]
    for ceil in (False, True):
        if _sizes(inside, kernel, stride, ceil=ceil) == g.shape_of(node)[2:]:
            return list(kernel), list(stride), list(before), [1, 1], ceil
    return None


def _sizes(
    sizes: Sequence[int], kernel: Sequence[int], stride: Sequence[int], *, ceil: bool
) -> tuple[int, ...]:
    rounded = math.ceil if ceil else math.floor
    return tuple(rounded((n - k) / s) + 1 for n, k, s in zip(sizes, kernel, stride, strict=True))
