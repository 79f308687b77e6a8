"""Pools over one to three axes. MIL: ``pool``."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgemix.targets.coreml.kernels.base import Ints, kernels, padded, padding

_MAX = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


def max_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    steps = list(strides or [1] * len(kernel_sizes))
    pads, beyond = _pads(x, kernel_sizes, pad_type, steps, pad, ceil_mode)
    filled = padded(padded(x, pads, -math.inf), beyond, -math.inf)
    return _MAX[len(kernel_sizes)](filled, list(kernel_sizes), steps)


def avg_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Tensor:
    """What ``ceil_mode`` adds at the end never counts; padding does, unless it is excluded."""
    steps = list(strides or [1] * len(kernel_sizes))
    pads, beyond = _pads(x, kernel_sizes, pad_type, steps, pad, ceil_mode)
    ones = torch.ones_like(x[:1, :1])
    counted = padded(ones, pads, 0.0 if exclude_padding_from_average else 1.0)
    count = _sums(padded(counted, beyond), kernel_sizes, steps)
    return _sums(padded(padded(x, pads), beyond), kernel_sizes, steps) / count


def l2_pool(
    x: Tensor,
    kernel_sizes: Ints,
    pad_type: str,
    strides: Ints | None = None,
    pad: Ints | None = None,
    ceil_mode: bool = False,
) -> Tensor:
    """The square root of the sum of squares."""
    steps = list(strides or [1] * len(kernel_sizes))
    pads, beyond = _pads(x, kernel_sizes, pad_type, steps, pad, ceil_mode)
    return _sums(padded(padded(x * x, pads), beyond), kernel_sizes, steps).sqrt()


def _sums(x: Tensor, kernel: Ints, strides: Ints) -> Tensor:
    if len(kernel) == 3:
        return F.avg_pool3d(x, list(kernel), list(strides), divisor_override=1)
    if len(kernel) == 1:
        flat = x.unsqueeze(-2)
        return F.avg_pool2d(flat, [1, *kernel], [1, *strides], divisor_override=1).squeeze(-2)
    return F.avg_pool2d(x, list(kernel), list(strides), divisor_override=1)


def _pads(
    x: Tensor, kernel: Ints, pad_type: str, strides: Ints, pad: Ints | None, ceil_mode: bool
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The padding, and what windows that begin inside take beyond it where sizes round up."""
    pads = padding(pad_type, pad, x.shape[2:], kernel, strides)
    beyond = []
    for size, k, stride, (before, after) in zip(x.shape[2:], kernel, strides, pads, strict=True):
        whole = size + before + after
        windows = (whole - k) // stride + 1
        if ceil_mode:
            windows = -((k - whole) // stride) + 1
            # As torch: no window begins in the padding at the end.
            if (windows - 1) * stride >= size + before and before + after > 0:
                windows -= 1
        beyond.append((0, max(0, (windows - 1) * stride + k - whole)))
    return pads, beyond


KERNELS = kernels(max_pool, avg_pool, l2_pool)
