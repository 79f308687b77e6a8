"""Convolutions of one to three axes. MIL: ``conv``."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from edgemix.targets.coreml.kernels.base import Ints, kernels, padded, padding

_CONVOLVE = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
_TRANSPOSE = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    strides: Ints | None = None,
    pad_type: str = "valid",
    pad: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """X [n, C_in, *D], weight [C_out, C_in / groups, *K]."""
    axes = weight.ndim - 2
    strides, dilations = list(strides or [1] * axes), list(dilations or [1] * axes)
    extents = _extents(weight, dilations)
    pads = padding(pad_type, pad, x.shape[2:], extents, strides)
    if all(before == after for before, after in pads):
        even = [before for before, _ in pads]
        return _CONVOLVE[axes](x, weight, bias, strides, even, dilations, groups)
    return _CONVOLVE[axes](padded(x, pads), weight, bias, strides, 0, dilations, groups)


def conv_transpose(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    pad: Ints | None = None,
    output_shape: Ints | None = None,
    pad_type: str = "valid",
    strides: Ints | None = None,
    dilations: Ints | None = None,
    groups: int = 1,
) -> Tensor:
    """X [n, C_in, *D], weight [C_in, C_out / groups, *K]: what ``conv`` takes its input back to.

    Everything that every element reaches is computed, then cut to the size that is asked for.
    """
    axes = weight.ndim - 2
    strides, dilations = list(strides or [1] * axes), list(dilations or [1] * axes)
    whole = _TRANSPOSE[axes](x, weight, None, strides, 0, 0, groups, dilations)
    sizes = list(whole.shape[2:])
    cuts = [(0, 0)] * axes
    if pad_type == "custom" and pad is not None:
        cuts = [(pad[2 * i], pad[2 * i + 1]) for i in range(axes)]
    wanted = None
    if output_shape is not None:
        wanted = list(output_shape)[-axes:]
    elif pad_type in ("same", "same_lower"):
        wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    if wanted is not None:
        cuts = [
            _cut(size - want, before, pad_type)
            for size, want, (before, _) in zip(sizes, wanted, cuts, strict=True)
        ]
    found = padded(whole, [(-before, -after) for before, after in cuts])
    if bias is None:
        return found
    return found + bias.reshape(-1, *[1] * axes)


def _cut(surplus: int, before: int, pad_type: str) -> tuple[int, int]:
    """How much to cut off before and after; what lacks at the end is filled with zeros."""
    total = max(surplus, 0)
    if pad_type == "same":
        before = total // 2
    elif pad_type == "same_lower":
        before = total - total // 2
    return before, surplus - before


def _extents(weight: Tensor, dilations: Ints) -> list[int]:
    return [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]


KERNELS = kernels(conv, conv_transpose)
