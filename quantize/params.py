"""From a range to an encoding."""

from __future__ import annotations

import math

import numpy as np
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
    """One symmetric scale per index of ``axis``, from the largest magnitudes there."""
    peaks = weight.detach().abs().amax(dim=[d for d in range(weight.ndim) if d != axis])
    each = [encode((-p, p), rule, narrow=True) for p in peaks.tolist()]
    return Encoding(
        tuple(e.scale[0] for e in each),
        (0,) * len(each),
        each[0].qmin,
        each[0].qmax,
        each[0].dtype,
        axis,
    )


def encode_bias(activation: Encoding, weight: Encoding) -> Encoding:
    """A bias lies on the grid of the products that it is added to: 32 bits, scale s_x · s_w."""
    scale = tuple(float(np.float32(activation.lsb * s)) for s in weight.scale)
    return Encoding(
        scale, (0,) * len(scale), -(2**31), 2**31 - 1, "int32", None if weight.axis is None else 0
    )


def representable(encoding: Encoding) -> Range:
    """Smallest and largest value of an encoding."""
    zero_point = encoding.zero_point[0]
    return (encoding.qmin - zero_point) * encoding.lsb, (encoding.qmax - zero_point) * encoding.lsb


def _ceil_power_of_two(step: float) -> float:
    mantissa, exponent = math.frexp(_positive(step))
    return math.ldexp(1.0, exponent - 1 if mantissa == 0.5 else exponent)


def _positive(step: float) -> float:
    return step if step > _SMALLEST else 2.0**-8
