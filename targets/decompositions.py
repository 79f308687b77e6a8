"""What both of Apple's converters overlook in an operator's arguments, in terms of plain ones.

Functions for the table of ``ExportedProgram.run_decompositions``: where one gives NotImplemented,
the operator stays as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions
from torch.export import default_decompositions

from edgemix.graph import aten

Table = dict[Any, Callable[..., Any]]


def common() -> Table:
    """What neither gets right."""
    return {
        aten.var.correction: _variance,
        aten.std_mean.dim: lambda x, *a, **k: (x.std(*a, **k), _mean(x, *a, **k)),
        aten.std_mean.correction: lambda x, *a, **k: (x.std(*a, **k), _mean(x, *a, **k)),
        aten.var_mean.dim: lambda x, *a, **k: (x.var(*a, **k), _mean(x, *a, **k)),
        aten.var_mean.correction: lambda x, *a, **k: (x.var(*a, **k), _mean(x, *a, **k)),
        aten.erfc.default: lambda x: 1 - x.erf(),
        aten.hypot.default: lambda x, y: (x * x + y * y).sqrt(),
        aten.isfinite.default: lambda x: x - x == 0,
        aten.lerp.Scalar: lambda x, y, weight: x + weight * (y - x),
        aten.lerp.Tensor: lambda x, y, weight: x + weight * (y - x),
        aten.logaddexp.default: lambda x, y: x.maximum(y) + (-(x - y).abs()).exp().log1p(),
        aten.unfold.default: _unfolded,
        aten.max_pool2d.default: _largest,
        aten.avg_pool2d.default: _average,
        aten.heaviside.default: lambda x, at: torch.where(x == 0, at, (x > 0).to(x.dtype)),
        # The converters overlook alpha.
        aten.add.Tensor: _scaled(aten.add.Tensor),
        aten.sub.Tensor: _scaled(aten.sub.Tensor),
    }


def by_torch(operators: Iterable[Any]) -> Table:
    """Torch's own definitions of operators, as far as it has them."""
    every = default_decompositions()
    return {op: every[op] if op in every else get_decompositions([op])[op] for op in operators}


def _variance(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float = 1, keepdim: bool = False
) -> Tensor:
    axes = list(dim) if dim else list(range(x.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / (count - correction)


def _mean(x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any) -> Tensor:
    return x.mean(dim, keepdim=keepdim)


def _unfolded(x: Tensor, axis: int, size: int, step: int) -> Tensor:
    starts = range(0, x.shape[axis] - size + 1, step)
    return torch.stack([x.narrow(axis, i, size).movedim(axis, -1) for i in starts], axis)


def _largest(x: Tensor, kernel: Sequence[int], *options: Any) -> Any:
    return _whole_windows(aten.max_pool2d, x, kernel, *options)


def _average(x: Tensor, kernel: Sequence[int], *options: Any) -> Any:
    """There is no divisor of its own there: the mean with zeros around, times size by divisor."""
    if len(options) < 5 or options[4] is None:
        return _whole_windows(aten.avg_pool2d, x, kernel, *options)
    stride, padding, ceil = options[:3]
    mean = aten.avg_pool2d(x, kernel, stride, padding, ceil, True)
    return mean * (math.prod(both_axes(kernel)) / options[4])


def _whole_windows(
    pool: Callable[..., Any], x: Tensor, kernel: Sequence[int], *options: Any
) -> Any:
    """Without the window that ``ceil_mode`` would start behind the padded input.

    Torch drops it, they do not. Windows are products of spans, so where only one axis has
    such a window, each axis is pooled by itself.
    """
    largest = pool is aten.max_pool2d
    given = [*options, *[None] * 5]
    if not given[3 if largest else 2]:
        return NotImplemented
    kernel, stride, padding = (
        both_axes(kernel),
        both_axes(given[0] or kernel),
        both_axes(given[1] or [0]),
    )
    dilation = both_axes((given[2] if largest else None) or [1])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    behind = [
        math.ceil((n + 2 * p - r) / s) * s >= n + p
        for n, p, r, s in zip(x.shape[2:], padding, reach, stride, strict=True)
    ]
    if not any(behind):
        return NotImplemented
    for axis in (0, 1):
        one = [kernel, stride, padding, dilation]
        alone = [
            [v[i] if i == axis else none for i in (0, 1)]
            for v, none in zip(one, (1, 1, 0, 1), strict=True)
        ]
        ceil = not behind[axis]
        ends = [alone[3], ceil] if largest else [ceil, given[3] is not False]
        x = pool(x, *alone[:3], *ends)
    return x


def both_axes(values: Sequence[int]) -> list[int]:
    """One number for height and width, or a number for each."""
    return list(values) * 2 if len(values) == 1 else list(values)


def _scaled(operator: Callable[..., Any]) -> Callable[..., Any]:
    def sum_of(x: Tensor, y: Any, *, alpha: float = 1) -> Any:
        return NotImplemented if alpha == 1 else operator(x, y * alpha)

    return sum_of
