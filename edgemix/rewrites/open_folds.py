"""``nn.Unfold`` and ``nn.Fold`` → convolutions with kernels of a single one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class OpenFolds:
    """``im2col`` picks every place of a window by a kernel of its own, ``col2im`` puts them back.

    The kernels are exact on every grid; the multiplications with zeros cost the window's size once
    more (VOLO's 3×3: nine for each value that is moved).
    """

    name: ClassVar[str] = "open_folds"

    def apply(self, module: GraphModule) -> int:
        """Open them all; returns how many there were."""
        count = 0
        for target, opened in ((aten.im2col.default, _unfold), (aten.col2im.default, _fold)):
            for node in module.graph.find_nodes(op="call_function", target=target):
                opened(Writer(module, node, self.name), node)
                count += 1
        return count


def _unfold(write: Writer, node: Node) -> None:
    source, kernel, dilation, padding, stride = _five(node)
    channels = g.shape_of(source)[1]
    picks = write.constant("picks", _picks(channels, kernel))
    found = write(aten.conv2d.default, source, picks, None, stride, padding, dilation, channels)
    write.replace(write(aten.flatten.using_ints, found, 2))


def _fold(write: Writer, node: Node) -> None:
    size: Any = node.args[1]
    source, kernel, dilation, padding, stride = _five(node, skip=1)
    n, columns, _ = g.shape_of(source)
    channels = columns // math.prod(kernel)
    steps = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, p, d, k, t in zip(size, padding, dilation, kernel, stride, strict=True)
    ]
    over = [
        s - ((m - 1) * t - 2 * p + d * (k - 1) + 1)
        for s, m, t, p, d, k in zip(size, steps, stride, padding, dilation, kernel, strict=True)
    ]
    picks = write.constant("picks", _picks(channels, kernel))
    wide = write(aten.reshape.default, source, [n, columns, *steps])
    options = (stride, padding, over, channels, dilation)
    write.replace(write(aten.conv_transpose2d.input, wide, picks, None, *options))


def _five(node: Node, skip: int = 0) -> tuple[Any, ...]:
    source, *rest = (node.args[0], *node.args[1 + skip :])
    return source, *(list(g.pair(v)) for v in rest)


def _picks(channels: int, kernel: list[int]) -> Tensor:
    """[channels · places, 1, kh, kw], a single one in each."""
    places = math.prod(kernel)
    return torch.eye(places).reshape(places, 1, *kernel).repeat(channels, 1, 1, 1)
