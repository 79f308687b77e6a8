"""What a linear operator reads, as the columns of a matrix product."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten

_UNFOLDED = 1 << 20
"""Values at once: 4 MB, which stay in the cache."""


def columns(node: Node, x: Tensor) -> Iterator[Tensor]:
    """What each output position reads, some samples at a time.

    Args:
        node: a linear operator or a convolution.
        x: what it reads, [n, ...].

    Yields:
        [samples, groups, columns, positions]: columns are a group's input channels times the
        kernel's places, in the order of a weight's.
    """
    if node.target is aten.linear.default:
        yield x.reshape(-1, x.shape[-1]).T[None, None]
        return
    weight: Any = node.args[1]
    shape = g.shape_of(weight)
    options: list[Any] = [*node.args[3:], *[None] * 4]
    stride, padding, dilation, groups = options[:4]
    if len(shape) == 3:  # a convolution over one axis is one over an image of one row
        x = x.unsqueeze(2)
        shape = (*shape[:2], 1, shape[2])
        stride, dilation = [1, *(stride or [1])], [1, *(dilation or [1])]
        padding = [0, *(padding or [0])]
    parts, side = int(groups or 1), shape[1] * shape[2] * shape[3]
    # Unfolding repeats every value for every weight of the kernel: a few samples at a time.
    few = max(_UNFOLDED // (x[0].numel() * shape[2] * shape[3]), 1)
    for some in torch.split(x, few):
        unfolded = torch.nn.functional.unfold(
            some, shape[2:], dilation or 1, padding or 0, stride or 1
        )
        yield unfolded.reshape(len(some), parts, side, -1)


def rows(node: Node, y: Tensor) -> Tensor:
    """A linear operator's results [n, ...] as [samples, groups, rows, positions]."""
    if node.target is aten.linear.default:
        return y.reshape(-1, y.shape[-1]).T[None, None]
    given: Any = node.args[6:]
    groups = int(given[0]) if given else 1
    return y.reshape(len(y), groups, y.shape[1] // groups, -1)
