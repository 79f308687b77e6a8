"""From a range to an encoding."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from edgemix.encoding import Encoding
from edgemix.quantize.recipe import Rule

Range = tuple[float, float]

_SMALLEST = 2.0**-24
"""Ranges below this are those of a tensor that is zero: any scale will do."""


def encode(bounds: Range, rule: Rule, *, narrow: bool = False) -> Encoding:
    """The encoding whose integers cover ``bounds`` (and zero) most finely.

    Args:
        bounds: smallest and largest value.
        rule: bits, symmetry and kind of scale.
        narrow: leave out the most negative integer (weights: -127 … 127).
    """
    lo, hi = min(bounds[0], 0.0), max(bounds[1], 0.0)
    qmax = (1 << (rule.bits - 1)) - 1
    qmin = -qmax if narrow else -qmax - 1
    dtype = "int8" if rule.bits <= 8 else "int16"
    if rule.fraction is not None:
        return Encoding.per_tensor(2.0**-rule.fraction, 0, qmin=-qmax - 1, qmax=qmax, dtype=dtype)
    if rule.scale == "power_of_two":
        qmin = -qmax - 1  # an ap_fixed has no narrow range
        zero_point = qmin if lo == 0.0 and hi > 0.0 and not narrow else 0
        step = hi / (qmax - qmin) if zero_point else max(-lo / -qmin, hi / qmax)
        return Encoding.per_tensor(
            _ceil_power_of_two(step), zero_point, qmin=qmin, qmax=qmax, dtype=dtype
        )
    if rule.symmetric:
        step = max(-lo / -qmin, hi / qmax)
        return Encoding.per_tensor(_positive(step), 0, qmin=qmin, qmax=qmax, dtype=dtype)
    scale = _positive(float(np.float32((hi - lo) / (qmax - qmin))))
    zero_point = min(max(round(qmin - lo / scale), qmin), qmax)
    return Encoding.per_tensor(scale, zero_point, qmin=qmin, qmax=qmax, dtype=dtype)


def encode_channels(weight: Tensor, rule: Rule, axis: int = 0) -> Encoding:
    """One symmetric scale per index of ``axis``.

    From the largest magnitudes there or, with the observer ``mse``, from the share of them that
    rounds the channel's values best.
    """
    rows = weight.detach().movedim(axis, 0).reshape(weight.shape[axis], -1)
    each = [encode((-p, p), rule, narrow=True) for p in _peaks(rows, rule).tolist()]
    return Encoding(
        tuple(e.scale[0] for e in each),
        (0,) * len(each),
        each[0].qmin,
        each[0].qmax,
        each[0].dtype,
        axis,
    )


def encode_groups(weight: Tensor, rule: Rule) -> Encoding:
    """One symmetric scale per row and group of columns of a matrix [rows, columns]."""
    found = encode_channels(weight.reshape(-1, rule.group), rule)
    return replace(found, group=rule.group)


def _peaks(rows: Tensor, rule: Rule) -> Tensor:
    """The magnitude up to which each of the rows [n, values] is represented."""
    full = rows.abs().amax(1)
    if rule.observer != "mse":
        return full
    best, least = full, torch.full_like(full, math.inf)
    for share in torch.linspace(1.0, 0.3, 57).tolist():
        # The scale that encode() gives the share, for all rows at once.
        limit = encode((-1.0, 1.0), rule, narrow=True)
        step = (full * share / limit.qmax).clamp(min=_SMALLEST)
        if rule.fraction is not None:
            step = torch.full_like(step, 2.0**-rule.fraction)
        elif rule.scale == "power_of_two":
            step = torch.exp2(torch.ceil(torch.log2(step)))
        coded = torch.round(rows / step[:, None]).clamp(limit.qmin, limit.qmax) * step[:, None]
        error = ((coded - rows) ** 2).sum(1)
        best = torch.where(error < least, full * share, best)
        least = torch.minimum(error, least)
    return best


def encode_bias(activation: Encoding, weight: Encoding) -> Encoding:
    """A bias lies on the grid of the products that it is added to: 32 bits, scale s_x · s_w."""
    scale = tuple(float(np.float32(activation.lsb * s)) for s in weight.scale)
    return Encoding(
        scale, (0,) * len(scale), -(2**31), 2**31 - 1, "int32", None if weight.axis is None else 0
    )


def _ceil_power_of_two(step: float) -> float:
    mantissa, exponent = math.frexp(_positive(step))
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _positive(step: float) -> float:
    return step if step > _SMALLEST else 2.0**-8
