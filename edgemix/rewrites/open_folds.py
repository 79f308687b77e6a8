"""``nn.Unfold`` and ``nn.Fold`` → convolutions with kernels of a single one, or views."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    more (VOLO's 3×3: nine for each value that is moved). Putting back is a convolution, too, with
    zeros between the values: the transposed one in groups that it is goes to few targets. Windows
    side by side are views.
    """

    name: ClassVar[str] = "open_folds"

    def apply(self, module: GraphModule) -> int:
        """Open them all; returns how many there were."""
        count = 0
        for target, opened in ((aten.im2col.default, _unfold), (aten.col2im.default, _fold)):
            for node in module.graph.find_nodes(op="call_function", target=target):
                _batched(Writer(module, node, self.name), opened)
                count += 1
        return count


@dataclass(frozen=True)
class _Windows:
    """Sizes along height and width."""

    kernel: list[int]
    dilation: list[int]
    padding: list[int]
    stride: list[int]

    @classmethod
    def of(cls, arguments: Any) -> _Windows:
        return cls(*(list(g.pair(v)) for v in arguments))

    @property
    def reach(self) -> list[int]:
        return [d * (k - 1) + 1 for d, k in zip(self.dilation, self.kernel, strict=True)]

    def counts(self, size: list[int]) -> list[int]:
        """How many there are on an image [height, width]."""
        return [
            (s + 2 * p - r) // t + 1
            for s, p, r, t in zip(size, self.padding, self.reach, self.stride, strict=True)
        ]

    def tiles(self, size: list[int]) -> bool:
        """Whether they lie side by side and cover an image."""
        covered = [n * k for n, k in zip(self.counts(size), self.kernel, strict=True)]
        return covered == size and self.stride == self.reach == self.kernel


def _batched(write: Writer, opened: Callable[[Writer, Node, list[Any]], Node]) -> None:
    source, *rest = write.at.args
    assert isinstance(source, Node)
    alone = write.at.meta["val"].ndim + source.meta["val"].ndim == 5
    if alone:
        source = write(aten.unsqueeze.default, source, 0)
    found = opened(write, source, rest)
    write.replace(write(aten.squeeze.dim, found, 0) if alone else found)


def _unfold(write: Writer, source: Node, arguments: list[Any]) -> Node:
    windows = _Windows.of(arguments)
    n, channels, *size = g.shape_of(source)
    (kh, kw), (h, w) = windows.kernel, windows.counts(size)
    if windows.tiles(size):
        split = write(aten.reshape.default, source, [n * channels, h, kh, w, kw])
        turned = write(aten.permute.default, split, [0, 2, 4, 1, 3])
        return write(aten.reshape.default, turned, [n, channels * kh * kw, h * w])
    picks = write.constant("picks", _picks(channels, windows.kernel))
    where = (windows.stride, windows.padding, windows.dilation)
    found = write(aten.conv2d.default, source, picks, None, *where, channels)
    return write(aten.flatten.using_ints, found, 2)


def _fold(write: Writer, source: Node, arguments: list[Any]) -> Node:
    size = list(arguments[0])
    windows = _Windows.of(arguments[1:])
    (kh, kw), (h, w) = windows.kernel, windows.counts(size)
    n, columns, _ = g.shape_of(source)
    channels = columns // (kh * kw)
    if windows.tiles(size):
        split = write(aten.reshape.default, source, [n * channels, kh, kw, h, w])
        turned = write(aten.permute.default, split, [0, 3, 1, 4, 2])
        return write(aten.reshape.default, turned, [n, channels, *size])
    picks = _picks(channels, windows.kernel).reshape(channels, -1, kh, kw).flip(2, 3)
    spread = _spread(write, write(aten.reshape.default, source, [n, columns, h, w]), windows.stride)
    before = [r - 1 - p for r, p in zip(windows.reach, windows.padding, strict=True)]
    after = [
        s - (have + b - (r - 1))
        for s, have, b, r in zip(size, g.shape_of(spread)[2:], before, windows.reach, strict=True)
    ]
    padding = before
    if before != after or min(before) < 0:
        around = [before[1], after[1], before[0], after[0]]
        spread = write(aten.constant_pad_nd.default, spread, around, 0.0)
        padding = [0, 0]
    kernels = write.constant("picks", picks)
    where = ([1, 1], padding, windows.dilation)
    return write(aten.conv2d.default, spread, kernels, None, *where, channels)


def _spread(write: Writer, x: Node, stride: list[int]) -> Node:
    """Zeros behind every value: [n, c, h, w] → [n, c, h · stride, w · stride]."""
    if stride == [1, 1]:
        return x
    n, c, h, w = g.shape_of(x)
    (down, right) = stride
    split = write(aten.reshape.default, x, [n * c, h, 1, w, 1])
    padded = write(aten.constant_pad_nd.default, split, [0, right - 1, 0, 0, 0, down - 1], 0.0)
    return write(aten.reshape.default, padded, [n, c, h * down, w * right])


def _picks(channels: int, kernel: list[int]) -> Tensor:
    """[channels · places, 1, kh, kw], a single one in each."""
    places = math.prod(kernel)
    return torch.eye(places).reshape(places, 1, *kernel).repeat(channels, 1, 1, 1)
