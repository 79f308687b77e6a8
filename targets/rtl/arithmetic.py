"""Fixed-point arithmetic as logic: exact sums and products, one rounding, one saturation.

Values are da4ml's ``FixedVariable``: a bit vector with an interval that no value ever leaves, so
nothing here overflows, and logic that an interval makes superfluous is never built. Arrays of them
are numpy object arrays. The module loads da4ml, so only the child process imports it.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt
from da4ml.trace.fixed_variable import FixedVariable, LookupTable, to_csd_powers

from edgemix.encoding import FixedPoint

Variables = npt.NDArray[np.object_]
Variable = Any
"""A FixedVariable; one that cannot change is a constant of the same class."""


def balanced_sum(terms: Sequence[Variable]) -> Variable:
    """The exact sum, earliest terms first, so that the tree is no deeper than needed."""
    order = count()
    heap = [(t.latency, next(order), t) for t in terms]
    heapq.heapify(heap)
    while len(heap) > 1:
        _, _, a = heapq.heappop(heap)
        _, _, b = heapq.heappop(heap)
        total = a + b
        heapq.heappush(heap, (total.latency, next(order), total))
    return heap[0][2]


def largest(terms: Sequence[Variable]) -> Variable:
    """The maximum, by a tree of comparisons."""
    found = list(terms)
    while len(found) > 1:
        pairs = zip(found[::2], found[1::2], strict=False)
        found = [a.max_of(b) for a, b in pairs] + ([found[-1]] if len(found) % 2 else [])
    return found[0]


def reaches(x: Variable, bound: float, *, negated: bool) -> Variable:
    """1 where x ≥ bound, else 0; negated, 0 and 1."""
    over, under = (0.0, 1.0) if negated else (1.0, 0.0)
    if float(x.low) >= bound or float(x.high) < bound:
        return _constant(over if float(x.low) >= bound else under, x)
    # Neither always nor never: the difference can be negative, so its highest bit is its sign.
    return positive(x - bound).msb_mux(_constant(under, x), _constant(over, x))


def fit(x: Variable, fixed: FixedPoint) -> Variable:
    """``x`` as that type holds it: rounded half to even, then saturated."""
    return saturate(round_half_even(x, fixed.fraction), fixed)


def round_half_even(x: Variable, fraction: int) -> Variable:
    """``x`` on the grid of 2**-fraction; ties go to the even neighbour.

    x + ½ LSB cut off rounds ties up. It was a tie where every bit that was cut is zero, and then
    the even neighbour is the one below if the last bit that stays is one: that bit is cleared.
    """
    cut = x.kif[2] - fraction
    if cut <= 0:
        return x
    if x.low == x.high:
        return _constant(_rounded(float(x.low), fraction), x)
    up = positive(x + 2.0 ** (-fraction - 1))
    signed, integer, _ = up.kif
    rest = up.quantize(0, -fraction, up.kif[2])
    not_tie = rest.unary_bit_op("any") * 2.0**-fraction
    last = up.quantize(0, 1 - fraction, fraction) & not_tie
    if signed + integer + fraction <= 1:
        return last if not signed else up.quantize(signed, integer, fraction)
    above = up.quantize(signed, integer, fraction - 1)
    result = above | last
    # Bit operations forget intervals; rounding keeps them.
    result.low = max(result.low, _decimal(_rounded(float(x.low), fraction), result))
    result.high = min(result.high, _decimal(_rounded(float(x.high), fraction), result))
    return result


def saturate(x: Variable, fixed: FixedPoint) -> Variable:
    """``x``, which lies on the grid of ``fixed`` or a coarser one, limited to its range."""
    step = 2.0**-fixed.fraction
    top = 2.0 ** (fixed.integer - fixed.signed)
    lowest, highest = -top * fixed.signed, top - step
    if x.high < lowest or x.low > highest:
        return _constant(lowest if x.high < lowest else highest, x)
    if float(x.low) >= lowest and float(x.high) <= highest:
        return x
    x = positive(x)
    signed, integer, fraction = x.kif
    if not fixed.signed and x.low < 0:
        if float(x.high) <= highest:
            return x.relu()
        # What the bits of a negative value say is overruled by its sign, one level later.
        kept = x.quantize(0, fixed.integer, fraction)
        over = x.quantize(0, integer, -fixed.integer).unary_bit_op("any")
        inside = over.msb_mux(_constant(highest, x), kept, (0, highest, step))
        return x.msb_mux(_constant(0.0, x), inside, (0, highest, step))
    kept = x.quantize(fixed.signed, fixed.integer - fixed.signed, fraction)
    # Bits at and above the type's sign: all alike where the value fits. A grid above them
    # holds nothing but zero there.
    above = x.quantize(signed, integer, -(fixed.integer - fixed.signed))
    over = above.unary_bit_op("any")
    if x.low >= 0:
        return over.msb_mux(_constant(highest, x), kept, (lowest, highest, step))
    if fraction >= -(fixed.integer - fixed.signed):
        over = over & ~above.unary_bit_op("all")
    limit = x.msb_mux(_constant(lowest, x), _constant(highest, x), (lowest, highest, step))
    return over.msb_mux(limit, kept, (lowest, highest, step))


def look_up(
    x: Variable, integers: npt.NDArray[np.int64], given: FixedPoint, lsb: float
) -> Variable:
    """A table's value for ``x``: entry i belongs to the bit pattern i of the type ``given``."""
    if x.low == x.high:
        return _constant(float(integers[_pattern(float(x.low), given)]) * lsb, x)
    x = positive(x)
    grid = np.arange(round((x.high - x.low) / x.step) + 1) * float(x.step) + float(x.low)
    values = np.array([integers[_pattern(v, given)] for v in grid], np.float64) * lsb
    if values.min() == values.max():
        return _constant(float(values[0]), x)
    return x.lookup(LookupTable(values))


def divide(total: Variable, divisor: int, fraction: int) -> Variable:
    """Total / divisor, rounded half to even on the grid of 2**-fraction.

    A power of two is a shift. Any other divisor is a product with a reciprocal that is precise
    enough to give every quotient's floor (Granlund and Montgomery, "Division by invariant
    integers using multiplication", PLDI 1994); ties, which an even divisor has, are found by
    their remainder.
    """
    if divisor & (divisor - 1) == 0:
        return round_half_even(total * (1.0 / divisor), fraction)
    if total.low == total.high:
        exact = Fraction(float(total.low)) / divisor * Fraction(2) ** fraction
        return _constant(float(round(exact)) * 2.0**-fraction, total)
    # In integers: n / d with n = total · 2**grid, d = divisor · 2**(grid - fraction).
    grid = max(total.kif[2], fraction)
    n = total * 2.0**grid
    d = divisor << (grid - fraction)
    # Half up is floor((2 n + d) / (2 d)); whole multiples of 2 d make the numerator positive.
    twice = 2 * d
    below = -int(min(Fraction(float(n.low)) / d, 0) - 1)
    numerator = positive(n * 2.0 + (d + twice * below))
    twos = (twice & -twice).bit_length() - 1
    shifted = numerator * 2.0**-twos
    up = _floor_of_product(positive(shifted.quantize(*_kif(shifted, 0))), twice >> twos)
    if d % 2 == 0:
        remainder = numerator - scaled(up, float(twice))
        tie = ~positive(remainder).unary_bit_op("any")
        last = up.quantize(0, 1, 0)
        odd = last if below % 2 == 0 else ~last
        up = up - (tie & odd)
    return (up - below) * 2.0**-fraction


def scaled(x: Variable, factor: float) -> Variable:
    """The exact product with a constant: a sum of few shifted copies (canonical signed digits)."""
    if isinstance(x, float | int):
        return x * factor
    terms = [x * power for power in to_csd_powers(factor)]
    return balanced_sum(terms) if terms else _constant(0.0, x)


def product(a: Variables, b: Variables) -> Variables:
    """Elementwise products of variables and numbers, broadcast."""
    found = np.empty(np.broadcast_shapes(a.shape, b.shape), object)
    for i, (x, y) in enumerate(np.broadcast(a, b)):
        if isinstance(y, FixedVariable) and not isinstance(x, FixedVariable):
            x, y = y, x
        found.flat[i] = x * y if isinstance(y, FixedVariable) else scaled(x, float(y))
    return found


def _floor_of_product(n: Variable, divisor: int) -> Variable:
    """floor(n / divisor) for an integer variable that is never negative and an odd divisor."""
    if divisor == 1:
        return n
    # n · (m / 2**k − 1 / divisor) < 1 / divisor keeps every floor where m rounds up.
    k = ((int(n.high) + 1) * divisor).bit_length()
    m = -(-(1 << k) // divisor)
    product = scaled(n, m * 2.0**-k)
    return positive(product.quantize(*_kif(product, 0)))


def _kif(x: Variable, fraction: int) -> tuple[int, int, int]:
    signed, integer, _ = x.kif
    return int(signed), int(integer), fraction


def positive(x: Variable) -> Variable:
    """The same value, not as the negative of another: bit operations need its own bits."""
    if x._factor > 0 or x.low == x.high:
        return x
    signed, integer, fraction = x.kif
    result = x.quantize(signed, integer, fraction, _force_factor_clear=True)
    result.low, result.high = x.low, x.high
    return result


def variables(fixed: FixedPoint, count_: int, hardware: Any) -> Variables:
    """Inputs of that type."""
    found = np.empty(count_, object)
    for i in range(count_):
        found[i] = FixedVariable.from_kif(
            fixed.signed, fixed.integer - fixed.signed, fixed.fraction, hwconf=hardware
        )
    return found


def _constant(value: float, like: Variable) -> Variable:
    return FixedVariable.from_const(value, hwconf=like.hwconf)


def _decimal(value: float, like: Variable) -> Any:
    return type(like.low)(value)


def _rounded(value: float, fraction: int) -> float:
    return float(round(Fraction(value) * Fraction(2) ** fraction)) * 2.0**-fraction


def _pattern(value: float, given: FixedPoint) -> int:
    return round(math.ldexp(value, given.fraction)) & ((1 << given.width) - 1)


def number(value: Any, hardware: Any) -> Variable:
    """A variable; a plain number becomes a constant one."""
    if isinstance(value, FixedVariable):
        return value
    return FixedVariable.from_const(float(value), hwconf=hardware)
