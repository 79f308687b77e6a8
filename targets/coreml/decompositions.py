"""Operators that coremltools refuses, or gets wrong, in terms of those that it gets right.

Tried with coremltools 9 on three hundred calls of single operators against torch, in 32 bits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edgemix.graph import aten
from edgemix.targets.decompositions import Table, by_torch, common

_BY_TORCH = (
    aten.addcdiv.default, aten.addcmul.default, aten.celu.default, aten.channel_shuffle.default,
    aten.cosine_similarity.default, aten.deg2rad.default,
    aten.kron.default, aten.logit.default, aten.pixel_unshuffle.default,
    aten.rot90.default, aten.special_logit.default,
    aten.take_along_dim.default, aten._upsample_nearest_exact2d.vec, aten.__and__.Tensor,
    aten.__or__.Tensor, aten.bitwise_xor.Tensor,
)  # fmt: skip
"""Where torch's definition is one that coremltools takes."""


def table() -> Table:
    """What ``run_decompositions`` is given."""
    return {
        **by_torch(_BY_TORCH),
        **common(),
        aten.rsub.Tensor: _reversed,
        aten.gelu.default: _gelu,
        aten.softplus.default: _softplus,
        # The converter gives a whole number a type of its own.
        aten.where.ScalarSelf: lambda where, x, y: torch.where(where, torch.full_like(y, x), y),
        aten.where.ScalarOther: lambda where, x, y: torch.where(where, x, torch.full_like(x, y)),
        aten.reciprocal.default: _reciprocal,
        aten.acosh.default: lambda x: (x + (x * x - 1).sqrt()).log(),
        aten.log_sigmoid.default: lambda x: -aten.softplus(-x),
        aten.round.decimals: lambda x, *, decimals=0: (x * 10**decimals).round() / 10**decimals,
        aten.rms_norm.default: _root_mean_square_norm,
        aten.constant_pad_nd.default: _padded,
        aten.pad.default: _padded_somehow,
        aten.asinh.default: lambda x: x.sign() * (x.abs() + (x * x + 1).sqrt()).log(),
        aten.trunc.default: _trunc,
        aten.div.Tensor_mode: _divided,
        aten.fmod.Scalar: lambda x, y: x - y * _trunc(x / y),
        aten.fmod.Tensor: lambda x, y: x - y * _trunc(x / y),
        aten.prod.dim_int: _product,
        aten.__xor__.Tensor: _either,
        aten.logical_xor.default: _either,
        aten.bitwise_or.Tensor: _or,
    }


def _reversed(x: Tensor, y: Tensor, *, alpha: float = 1) -> Tensor:
    return y - x * alpha


def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    """The converter overlooks keywords; a pass of its own finds the pattern again."""
    if approximate == "none":
        return NotImplemented
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3.0))
    return 0.5 * x * (1 + inner.tanh())


def _softplus(x: Tensor, beta: float = 1, threshold: float = 20) -> Any:
    """Core ML's own has a beta for each channel and no threshold."""
    if (beta, threshold) == (1, 20):
        return NotImplemented
    soft = aten.softplus(x * beta) / beta
    return torch.where(x * beta > threshold, x, soft)


def _reciprocal(x: Tensor) -> Tensor:
    """Core ML's ``inverse`` adds 1e-4 to x."""
    return torch.ones_like(x) / x


def _divided(x: Tensor, y: Any, *, rounding_mode: str | None = None) -> Tensor:
    """The converter takes the mode for the name of a node, if one is called floor."""
    found: Tensor = x / y
    if rounding_mode is None:
        return found
    return found.floor() if rounding_mode == "floor" else _trunc(found)


def _trunc(x: Tensor) -> Tensor:
    return x.sign() * x.abs().floor()


def _product(x: Tensor, dim: int, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    pieces = list(x.unbind(dim))
    found = pieces[0]
    for piece in pieces[1:]:
        found = found * piece
    return found.unsqueeze(dim) if keepdim else found


def _either(x: Tensor, y: Tensor) -> Tensor:
    return x.to(torch.int32) + y.to(torch.int32) == 1


def _root_mean_square_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None = None, epsilon: float | None = None
) -> Tensor:
    axes = list(range(-len(shape), 0))
    tiny = torch.finfo(x.dtype).eps if epsilon is None else epsilon
    found = x * ((x * x).mean(axes, keepdim=True) + tiny).rsqrt()
    return found if weight is None else found * weight


def _padded(x: Tensor, pads: Sequence[int], value: float = 0) -> Any:
    """Core ML takes nothing away by padding."""
    if min(pads) >= 0:
        return NotImplemented
    for i, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        kept = x.shape[-i] + min(before, 0) + min(after, 0)
        x = x.narrow(x.ndim - i, max(-before, 0), kept)
    return aten.constant_pad_nd(x, [max(n, 0) for n in pads], value)


def _padded_somehow(
    x: Tensor, pads: Sequence[int], mode: str = "constant", value: Any = None
) -> Any:
    if mode == "constant" and min(pads) < 0:
        return _padded(x, pads, value or 0)
    if mode != "circular":
        return NotImplemented
    for i, (before, after) in enumerate(zip(pads[::2], pads[1::2], strict=True), 1):
        axis, size = x.ndim - i, x.shape[-i]
        ends = x.narrow(axis, size - before, before), x, x.narrow(axis, 0, after)
        x = torch.cat([end for end in ends if end.shape[axis]], axis)
    return x


def _or(x: Tensor, y: Tensor) -> Any:
    return x.logical_or(y) if x.dtype == torch.bool else NotImplemented
