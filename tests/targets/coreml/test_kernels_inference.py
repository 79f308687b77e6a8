"""Arithmetic, functions, activations and reductions against coremltools' own value inference.

A kernel computes in float32 and rounds to float16 once; coremltools' inference rounds after every
step. So float16 is held against the inference in float32 of the same numbers, all 65,536 of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from coremltools.converters.mil.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Inferred = Callable[..., tuple[list[Any], tuple[Any, ...]]]
Within = Callable[..., None]
Formula = Callable[..., Any]


@pytest.fixture(autouse=True)
def extremes() -> Iterator[None]:
    """Overflow is what is tested here."""
    with np.errstate(all="ignore"):
        yield


ALL_FLOAT16 = np.arange(2**16, dtype=np.uint16).view(np.float16)
EDGES = np.array(
    [0.0, -0.0, 1.0, -1.0, 0.5, 1.5, 2.5, -0.5, 65504, 65520, 1e-45, 1e-38, 3.4e38, -3.4e38, 88.8,
     -88.8, 104, -104, 2**24 + 2, math.pi, math.inf, -math.inf, math.nan],
    np.float32,
)  # fmt: skip
_PATTERNS = np.random.default_rng(0).integers(0, 2**32, 4096, np.uint32).view(np.float32)
FLOAT32 = np.concatenate(
    [
        EDGES,
        _PATTERNS[~np.isnan(_PATTERNS)],
        np.random.default_rng(1).normal(0, 3, 4096).astype(np.float32),
    ]
)
INT32 = np.array([0, 1, -1, 2, -7, 100, 46340, -46341, 2**31 - 1, -(2**31)], np.int32)

few = settings(max_examples=30, deadline=None, derandomize=True)

U = 2.0**-24
"""One rounding of float32, relative."""
SVML = 8
"""Roundings of numpy's float32 functions: Intel's library is right to four units."""

FLOATS_ONLY = ("ceil", "floor", "round", "relu", "relu6")
NUMBERS = ("abs", "sign", "square", "identity")
FORMS = {"fp16": ALL_FLOAT16, "fp32": FLOAT32, "int32": INT32}


@pytest.mark.parametrize(
    ("name", "form"),
    [(name, form) for name in (*FLOATS_ONLY, *NUMBERS) for form in FORMS
     if form != "int32" or name in NUMBERS],
)  # fmt: skip
def test_what_is_exact_or_rounded_once_is_equal(name: str, form: str, inferred: Inferred) -> None:
    x = FORMS[form]
    if name == "sign":  # MIL does not say what the sign of NaN is.
        x = x[~np.isnan(x)]
    (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x))
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)


FUNCTIONS = {
    "acos": np.arccos, "asin": np.arcsin, "atan": np.arctan, "atanh": np.arctanh, "cos": np.cos,
    "cosh": np.cosh, "erf": np.vectorize(math.erf), "exp": np.exp, "exp2": np.exp2, "sin": np.sin,
    "sinh": np.sinh, "sqrt": np.sqrt, "tan": np.tan, "tanh": np.tanh,
}  # fmt: skip


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("x", [ALL_FLOAT16, FLOAT32], ids=["fp16", "fp32"])
def test_functions(name: str, x: np.ndarray, inferred: Inferred, within: Within) -> None:
    (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x))
    with np.errstate(all="ignore"):
        exact = FUNCTIONS[name](x.astype(np.float64))
    # One unit is what the vector libraries under torch promise. Its sinh keeps no such promise.
    roundings = 4 if name == "sinh" else 2
    within(found, exact, roundings)
    if x.dtype == np.float32:
        within(found, expected, roundings + SVML)


def test_powers_of_two_of_integers_are_exact(kernel: Inferred) -> None:
    """Coremltools infers float64 for them, and declares int32."""
    (found,) = kernel("exp2", ["INT32"], x=np.arange(-3, 31, dtype=np.int32))
    assert found.tolist() == [0, 0, 0, *(2**k for k in range(31))]


def scaled(x: np.ndarray, by: float) -> Any:
    """``by`` roundings of x itself, where only they are left of a sum that cancels."""
    return by * U * np.abs(x)


def nothing(x: np.ndarray, exact: np.ndarray) -> Any:
    return 0.0


ACTIVATIONS: dict[str, tuple[dict[str, Any], float, Callable[[np.ndarray, np.ndarray], Any]]] = {
    # What else MIL is given; how often the kernel rounds; what it may be wrong by besides.
    "clip": ({"alpha": -1.5, "beta": 2.25}, 0, nothing),
    "threshold": ({"alpha": 0.75}, 0, nothing),
    "thresholded_relu": ({"alpha": 0.75}, 0, nothing),
    "leaky_relu": ({"alpha": 0.3}, 1, nothing),
    "clamped_relu": ({"alpha": 0.3, "beta": 4.0}, 1, nothing),
    "inverse": ({"epsilon": 1e-4}, 2, nothing),
    "rsqrt": ({"epsilon": 1e-12}, 4, nothing),
    "softsign": ({}, 2, nothing),
    "scaled_tanh": ({"alpha": 1.7, "beta": 0.6}, 4, nothing),
    "linear_activation": ({"alpha": 1.7, "beta": -0.6}, 1, lambda x, y: scaled(1.7 * x, 1)),
    "sigmoid_hard": ({"alpha": 0.2, "beta": 0.5}, 1, lambda x, y: scaled(0.2 * x, 1)),
    # A relative error of x + epsilon is an absolute one of its logarithm.
    "log": ({"epsilon": 1e-3}, 2, lambda x, y: U),
    # exp(x) - 1 keeps the roundings of exp, which are those of 1.
    "elu": ({"alpha": 1.3}, 1, lambda x, y: 1.3 * 3 * U),
    # exp(-x) overflows where the result is smaller than any normal number.
    "sigmoid": ({}, 4, lambda x, y: 2.0**-126),
    # Of 1 + erf(x) little is left far below zero: what it is wrong by is scaled by x.
    "gelu EXACT": ({}, 2, lambda x, y: scaled(x, 2)),
    "gelu TANH_APPROXIMATION": ({}, 2, lambda x, y: scaled(x, 4)),
    # A relative error of x is one of exp(-1.702 x) that is |1.702 x| times as large.
    "gelu SIGMOID_APPROXIMATION": ({}, 5, lambda x, y: np.nan_to_num(2 * scaled(1.702 * x, 1) * np.abs(y)) + np.abs(x) * 2.0**-126),
}  # fmt: skip


@pytest.mark.parametrize("case", ACTIVATIONS)
@pytest.mark.parametrize("x", [ALL_FLOAT16, FLOAT32], ids=["fp16", "fp32"])
def test_activations_are_the_inferences_formula_in_float64(
    case: str, x: np.ndarray, inferred: Inferred, within: Within, formula: Formula
) -> None:
    """In float32 the formulas of coremltools overflow (softplus) and cancel (elu)."""
    numbers, roundings, slack = ACTIVATIONS[case]
    name, _, mode = case.partition(" ")
    if name == "thresholded_relu":  # x >= alpha is not true of NaN, coremltools keeps it.
        x = x[~np.isnan(x)]
    given = {p: x.dtype.type(v) for p, v in numbers.items()} | ({"mode": mode} if mode else {})
    _, (found,) = inferred(lambda: getattr(mb, name)(x=x.copy(), **given))
    exact = formula(name, x=x.astype(np.float64), **given)
    within(found, exact, roundings, slack(x.astype(np.float64), exact))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_activations_by_channel(
    rank: int, dtype: Any, inferred: Inferred, within: Within, formula: Formula
) -> None:
    generator = np.random.default_rng(rank)
    x = generator.normal(0, 20, (2, 3, 4, 5, 1)[:rank]).astype(dtype)
    alpha, beta = generator.normal(0, 1, (2, 3)).astype(dtype)
    if rank != 4:  # Else coremltools refuses it.
        alpha[:] = alpha[0]
    _, (found,) = inferred(lambda: mb.prelu(x=x, alpha=alpha))
    within(found, formula("prelu", x=x, alpha=alpha), 1)
    _, (found,) = inferred(lambda: mb.softplus_parametric(x=x, alpha=alpha, beta=beta))
    wide_alpha, wide_beta = (
        v.astype(np.float64).reshape(3, *[1] * (rank - 2)) for v in (alpha, beta)
    )
    # The inference adds exp(beta x) to 1, where it is lost far below zero, even in float64.
    exact = wide_alpha * np.logaddexp(0, wide_beta * x)
    # A relative error of beta x is one of exp(beta x) that is |beta x| times as large.
    within(found, exact, 7, U * np.abs(wide_beta * x * exact))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_softplus_silu_and_softmax(
    dtype: Any, kernel: Inferred, inferred: Inferred, within: Within, formula: Formula
) -> None:
    x = np.linspace(-60, 60, 997).astype(dtype)
    _, (found,) = inferred(lambda: mb.softplus(x=x))
    within(found, np.logaddexp(0, x.astype(np.float64)), 5)
    (found,) = kernel("silu", [f"FLOAT{8 * x.itemsize}"], x=x)
    within(found, x / (1 + np.exp(-x.astype(np.float64))), 5)
    for axis in (0, 1, -1):
        y = np.random.default_rng(0).normal(0, 6, (7, 9, 1)[: 2 + (axis == -1)]).astype(dtype)
        _, (found,) = inferred(lambda y=y, axis=axis: mb.softmax(x=y, axis=axis))
        # The difference to the largest is rounded, an error of exp's argument; n are added up.
        gap = np.abs(y.astype(np.float64) - y.max(axis, keepdims=True))
        exact = formula("softmax", x=y, axis=axis)
        within(found, exact, 4 + y.shape[axis], U * gap.max() * 2 * exact)


ARITHMETIC = ("add", "sub", "mul", "real_div", "floor_div", "mod", "maximum", "minimum")
COMPARISONS = ("equal", "not_equal", "greater", "greater_equal", "less", "less_equal")
LOGIC = ("logical_and", "logical_or", "logical_xor")


@st.composite
def operands(draw: st.DrawFn, dtype: Any, count: int = 2) -> list[np.ndarray]:
    """Arrays whose shapes broadcast, of rank 0 to 5."""
    shapes = draw(
        hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=5, max_side=3)
    ).input_shapes
    if dtype is np.int32:
        elements: Any = st.sampled_from(INT32.tolist())
    elif dtype is np.bool_:
        elements = st.booleans()
    else:
        elements = st.floats(width=16) | st.sampled_from([-0.0, 65504.0, 6e-8, math.inf])
    return [draw(hnp.arrays(dtype, shape, elements=elements)) for shape in shapes]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
@pytest.mark.parametrize("name", [*ARITHMETIC, *COMPARISONS])
@few
@given(data=st.data())
def test_arithmetic_and_comparisons(
    name: str, dtype: Any, data: st.DataObject, inferred: Inferred
) -> None:
    x, y = data.draw(operands(dtype))
    if dtype is np.int32 and name in ("real_div", "floor_div", "mod"):
        y = np.where((y == 0) | (y == -1), np.int32(3), y)
    if dtype is np.int32 and name == "real_div":
        # Coremltools infers float64 quotients, of which it declares that they are int32.
        (found,) = inferred(lambda: mb.real_div(x=x, y=y))[1]
        np.testing.assert_array_equal(found.numpy(), np.trunc(x / y))
        return
    (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x, y=y))
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("name", LOGIC)
@few
@given(data=st.data())
def test_logic(name: str, data: st.DataObject, inferred: Inferred) -> None:
    x, y = data.draw(operands(np.bool_))
    (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x, y=y))
    np.testing.assert_array_equal(found.numpy(), expected)
    (expected,), (found,) = inferred(lambda: mb.logical_not(x=x))
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32, np.bool_])
@few
@given(data=st.data())
def test_select(dtype: Any, data: st.DataObject, inferred: Inferred) -> None:
    a, b = data.draw(operands(dtype))
    cond = data.draw(hnp.arrays(np.bool_, np.broadcast_shapes(a.shape, b.shape)))
    (expected,), (found,) = inferred(lambda: mb.select(cond=cond, a=a, b=b))
    np.testing.assert_array_equal(found.numpy(), expected)


def test_powers(inferred: Inferred, within: Within) -> None:
    x, y = np.meshgrid(FLOAT32[: len(EDGES) + 100], FLOAT32[: len(EDGES) + 100])
    (expected,), (found,) = inferred(lambda: mb.pow(x=x, y=y))
    with np.errstate(all="ignore"):
        within(found, np.power(x.astype(np.float64), y.astype(np.float64)), 2)
    within(found, expected, 2 + SVML)
    bases, exponents = np.meshgrid(np.arange(-9, 10, dtype=np.int32), np.arange(9, dtype=np.int32))
    (expected,), (found,) = inferred(lambda: mb.pow(x=bases, y=exponents))
    np.testing.assert_array_equal(found.numpy(), expected)


CASTS = {
    "fp16": [0.1, -65504, 65519.9, 65520, 1e-8, 3e38, math.nan],
    "fp32": [0.1, -2.5, 16777217, math.inf],
    "int32": [0.9, -0.9, 2.5, -7.999, 2**30],
    "int16": [0.9, -0.9, 32767.9, -32768], "uint16": [0.9, 65535, 40000],
    "int8": [127.9, -128, 1.5], "uint8": [255.9, 0.99, 128],
    "bool": [0, -0.0, 1e-45, -3, math.nan],
}  # fmt: skip


@pytest.mark.parametrize("source", [np.float32, np.int32, np.float16])
@pytest.mark.parametrize("dtype", CASTS)
def test_casts_truncate_and_round_to_nearest(dtype: str, source: Any, inferred: Inferred) -> None:
    with np.errstate(all="ignore"):
        x = np.array(CASTS[dtype]).astype(source)
    if source is np.float16:  # What its range does not hold is infinite, and no integer.
        x = x[np.isfinite(x)] if "int" in dtype else x
    if source is np.float16 and dtype in ("int16", "uint8", "int8", "uint16"):
        x = x[np.trunc(x.astype(np.float32)) <= np.iinfo(dtype).max]
    (expected,), (found,) = inferred(lambda: mb.cast(x=x, dtype=dtype))
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_quantization(axis: int | None, dtype: Any, inferred: Inferred) -> None:
    """In float32; of a float16 coremltools rounds the quotient before it rounds to an integer."""
    x = np.concatenate([np.arange(-300, 300) * 0.25, [-0.0, 1e9, -1e9]]).astype(np.float32)
    x = x.reshape(3, 201)
    n = () if axis is None else (x.shape[axis],)
    scale = np.random.default_rng(0).choice([0.5, 0.3, 2], n).astype(np.float32)
    zero = np.random.default_rng(1).integers(0, 100, n).astype(dtype)
    given = {"scale": scale, "zero_point": zero, "axis": axis}
    name = np.dtype(dtype).name
    (expected,), (found,) = inferred(lambda: mb.quantize(input=x, output_dtype=name, **given))
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
