"""One element at a time: arithmetic, comparison, logic, functions.

MIL: ``elementwise_binary``, ``elementwise_unary``, ``control_flow.select``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.targets.coreml.kernels.base import kernels


def add(x: Tensor, y: Tensor) -> Tensor:
    return x + y


def sub(x: Tensor, y: Tensor) -> Tensor:
    return x - y


def mul(x: Tensor, y: Tensor) -> Tensor:
    return x * y


def real_div(x: Tensor, y: Tensor) -> Tensor:
    # Float32, in which torch divides integers, does not hold all of them.
    return x / y if x.is_floating_point() else x.double() / y


def floor_div(x: Tensor, y: Tensor) -> Tensor:
    return torch.floor_divide(x, y)


def mod(x: Tensor, y: Tensor) -> Tensor:
    return torch.remainder(x, y)


def pow_(x: Tensor, y: Tensor) -> Tensor:
    return torch.pow(x, y)


def maximum(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x, y)


def minimum(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(x, y)


def equal(x: Tensor, y: Tensor) -> Tensor:
    return x == y


def not_equal(x: Tensor, y: Tensor) -> Tensor:
    return x != y


def greater(x: Tensor, y: Tensor) -> Tensor:
    return x > y


def greater_equal(x: Tensor, y: Tensor) -> Tensor:
    return x >= y


def less(x: Tensor, y: Tensor) -> Tensor:
    return x < y


def less_equal(x: Tensor, y: Tensor) -> Tensor:
    return x <= y


def logical_and(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_and(x, y)


def logical_or(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_or(x, y)


def logical_xor(x: Tensor, y: Tensor) -> Tensor:
    return torch.logical_xor(x, y)


def logical_not(x: Tensor) -> Tensor:
    return torch.logical_not(x)


def abs_(x: Tensor) -> Tensor:
    return x.abs()


def acos(x: Tensor) -> Tensor:
    return x.acos()


def asin(x: Tensor) -> Tensor:
    return x.asin()


def atan(x: Tensor) -> Tensor:
    return x.atan()


def atanh(x: Tensor) -> Tensor:
    return x.atanh()


def ceil(x: Tensor) -> Tensor:
    return x.ceil()


def clip(x: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    return torch.minimum(torch.maximum(x, alpha), beta)


def cos(x: Tensor) -> Tensor:
    return x.cos()


def cosh(x: Tensor) -> Tensor:
    return x.cosh()


def erf(x: Tensor) -> Tensor:
    return x.erf()


def exp(x: Tensor) -> Tensor:
    return x.exp()


def exp2(x: Tensor) -> Tensor:
    return x.exp2()


def floor(x: Tensor) -> Tensor:
    return x.floor()


def inverse(x: Tensor, epsilon: float = 1e-4) -> Tensor:
    return 1 / (x + epsilon)


def log(x: Tensor, epsilon: float = 1e-45) -> Tensor:
    return (x + epsilon).log()


def round_(x: Tensor) -> Tensor:
    """To the nearest integer, ties to even."""
    return x.round()


def rsqrt(x: Tensor, epsilon: float = 1e-12) -> Tensor:
    return 1 / (x + epsilon).sqrt()


def sign(x: Tensor) -> Tensor:
    return x.sign()


def sin(x: Tensor) -> Tensor:
    return x.sin()


def sinh(x: Tensor) -> Tensor:
    return x.sinh()


def sqrt(x: Tensor) -> Tensor:
    return x.sqrt()


def square(x: Tensor) -> Tensor:
    return x * x


def tan(x: Tensor) -> Tensor:
    return x.tan()


def tanh(x: Tensor) -> Tensor:
    return x.tanh()


def threshold(x: Tensor, alpha: Tensor) -> Tensor:
    return torch.maximum(x, alpha)


def select(cond: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """``a`` where ``cond`` is true, else ``b``; without both, the places where it is true."""
    if a is None or b is None:
        return torch.nonzero(cond)
    return torch.where(cond, a, b)


def cast(x: Tensor, dtype: str) -> Tensor:
    """The evaluator rounds every result to its declared type, and ``dtype`` declares it."""
    return x


def identity(x: Tensor) -> Tensor:
    return x


KERNELS = {
    **kernels(
        add, sub, mul, real_div, floor_div, mod, pow_, abs_, acos, asin, atan, atanh, ceil, cos,
        cosh, erf, exp, exp2, floor, inverse, log, round_, rsqrt, sin, sinh, sqrt, square, tan,
        tanh,
    ),
    **kernels(
        maximum, minimum, equal, not_equal, greater, greater_equal, less, less_equal, logical_and,
        logical_or, logical_xor, logical_not, clip, sign, threshold, select, cast, identity,
        moves=True,
    ),
}  # fmt: skip
