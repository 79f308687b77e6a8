"""Fixed-point types: of values, weights and accumulators that cannot overflow."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from edgemix.encoding import Encoding, FixedPoint
from edgemix.errors import InputError

Ints = npt.NDArray[np.int64]


def result_type(fixed: FixedPoint) -> str:
    """An activation's type: rounds half to even and saturates, as quantizing does."""
    prefix = "ap_fixed" if fixed.signed else "ap_ufixed"
    return f"{prefix}<{fixed.width},{fixed.integer},AP_RND_CONV,AP_SAT>"


def plain_type(fixed: FixedPoint) -> str:
    """The type of a constant or an accumulator: nothing is ever cut off."""
    prefix = "ap_fixed" if fixed.signed else "ap_ufixed"
    return f"{prefix}<{fixed.width},{fixed.integer}>"


def needed(encoding: Encoding | None, what: str) -> FixedPoint:
    """The fixed-point type of an encoding.

    Raises:
        InputError: it has none, because a scale is no power of two.
    """
    fixed = None if encoding is None else encoding.fixed_point()
    if fixed is None:
        raise InputError(f"{what} is no fixed-point value", do="quantize with the recipe fixed8")
    return fixed


def exact_type(values: npt.NDArray[np.float64]) -> FixedPoint:
    """The narrowest signed type that holds every one of some constants exactly.

    Raises:
        InputError: they are no multiples of one power of two within 64 bits.
    """
    fraction = _fraction_bits(values)
    integers = np.asarray(values, np.float64) * 2.0**fraction
    return _signed(int(integers.min(initial=0)), int(integers.max(initial=0)), fraction)


def product_sum(
    inputs: FixedPoint, weights: npt.NDArray[np.float64], biases: npt.NDArray[np.float64]
) -> FixedPoint:
    """The accumulator of Σ w·x + b for every output: interval analysis over all partial sums.

    Args:
        inputs: type of x.
        weights: [outputs, inputs].
        biases: [outputs].
    """
    lo, hi = bounds(inputs)
    peak = np.maximum(abs(lo), abs(hi)) * np.abs(weights).sum(1) + np.abs(biases)
    fraction = inputs.fraction + max(_fraction_bits(weights), 0)
    fraction = max(fraction, _fraction_bits(biases))
    largest = math.ceil(float(peak.max(initial=0)) * 2.0**fraction)
    return _signed(-largest, largest, fraction)


def inner_product(a: FixedPoint, b: FixedPoint, length: int) -> FixedPoint:
    """The accumulator of a sum of ``length`` products of two activations."""
    peak = max(map(abs, bounds(a))) * max(map(abs, bounds(b))) * length
    fraction = a.fraction + b.fraction
    largest = math.ceil(peak * 2.0**fraction)
    return _signed(-largest, largest, fraction)


def bounds(fixed: FixedPoint) -> tuple[float, float]:
    """Smallest and largest value of a type."""
    step = 2.0**-fixed.fraction
    if fixed.signed:
        return -(2.0 ** (fixed.width - 1)) * step, (2.0 ** (fixed.width - 1) - 1) * step
    return 0.0, (2.0**fixed.width - 1) * step


def raw_bounds(fixed: FixedPoint) -> tuple[int, int]:
    """Smallest and largest integer behind a type."""
    if fixed.signed:
        return -(1 << (fixed.width - 1)), (1 << (fixed.width - 1)) - 1
    return 0, (1 << fixed.width) - 1


def _fraction_bits(values: npt.NDArray[np.float64]) -> int:
    """Fewest bits right of the point that hold all values (may be negative)."""
    filled = np.asarray(values, np.float64).ravel()
    filled = filled[filled != 0]
    if filled.size == 0:
        return 0
    mantissa, exponent = np.frexp(filled)
    integers = (mantissa * 2.0**53).astype(np.int64)
    lowest = integers & -integers
    trailing = np.log2(lowest.astype(np.float64)).astype(np.int64)
    bits = int((53 - exponent - trailing).max())
    if bits > 63:
        raise InputError("constants need more than 63 bits right of the point")
    return bits


def _signed(lowest: int, highest: int, fraction: int) -> FixedPoint:
    width = max(max(highest, -lowest - 1).bit_length() + 1, 2)
    return FixedPoint(width, width - fraction, True)
