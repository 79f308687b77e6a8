"""Reductions, orders, products of matrices and norms against coremltools' value inference."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Inferred = Callable[..., tuple[list[Any], tuple[Any, ...]]]
Within = Callable[..., None]
Formula = Callable[..., Any]

few = settings(max_examples=30, deadline=None, derandomize=True)

U = 2.0**-24
"""One rounding of float32, relative."""
FLOATS = [np.float16, np.float32]
NUMBERS = [*FLOATS, np.int32]

SLACK: dict[str, Callable[[np.ndarray, Callable[..., Any], int], Any]] = {
    # x in float64, numpy's sum over the axes, how many are added: n additions, each rounded.
    "reduce_sum": lambda x, total, n: n * U * total(np.abs(x)),
    "reduce_mean": lambda x, total, n: (n + 1) * U * total(np.abs(x)) / n,
    "reduce_l1_norm": lambda x, total, n: n * U * total(np.abs(x)),
    "reduce_sum_square": lambda x, total, n: (n + 1) * U * total(x * x),
    "reduce_l2_norm": lambda x, total, n: (n + 3) * U * np.sqrt(total(x * x)),
    # A relative error of a sum is an absolute one of its logarithm, which is rounded itself.
    "reduce_log_sum": lambda x, total, n: (n + 2 * np.log(total(x))) * U,
    "reduce_log_sum_exp": lambda x, total, n: (n + 4 + 3 * math.log(n) + 3 * np.abs(x).max()) * U,
}


def some_axes(rank: int) -> st.SearchStrategy[list[int] | None]:
    one = st.integers(-rank, rank - 1)
    return st.none() | st.lists(one, min_size=1, unique_by=lambda axis: axis % rank)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("name", ["reduce_max", "reduce_min", "reduce_prod", *SLACK])
@few
@given(data=st.data())
def test_reductions(
    name: str, dtype: Any, data: st.DataObject, inferred: Inferred, within: Within
) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=5, max_side=4))
    elements: Any = st.integers(-9, 9) if dtype is np.int32 else st.floats(-60, 60, width=16)
    x = data.draw(hnp.arrays(dtype, shape, elements=elements))
    axes, keep = data.draw(some_axes(len(shape))), data.draw(st.booleans())
    if name == "reduce_log_sum":
        x = np.abs(x) + dtype(1)
    if name == "reduce_prod" and dtype is not np.int32:  # Else infinity meets zero.
        x = np.clip(x, -1.5, 1.5)
    (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x, axes=axes, keep_dims=keep))
    if dtype is np.int32 or name in ("reduce_max", "reduce_min"):
        np.testing.assert_array_equal(found.numpy(), expected)
        return
    over = None if axes is None else tuple(axes)
    wide, n = x.astype(np.float64), math.prod(shape[a] for a in over or range(len(shape)))
    (*_, newest) = SSAOpRegistry.core_ops[name].values()
    with np.errstate(over="ignore"):
        exact = newest.get_operator(None)(wide, axis=over, keepdims=keep)
    if name == "reduce_prod":
        within(found, exact, n)
    else:
        total = np.sum
        slack = SLACK[name](wide, lambda v: total(v, axis=over, keepdims=keep), n)
        within(found, exact, 1, slack)


def test_reductions_of_large_integers_and_infinities(inferred: Inferred, kernel: Inferred) -> None:
    x = np.array([4097, 0], np.int32)  # Float32 does not hold its square.
    (found,) = inferred(lambda: mb.reduce_l2_norm(x=x))[1]
    assert found.item() == 4097
    # Coremltools' inference subtracts infinity from itself.
    (found,) = kernel("reduce_log_sum_exp", ["FLOAT32"], x=np.full(3, -np.inf, np.float32))
    assert found.item() == -math.inf


@pytest.mark.parametrize("dtype", NUMBERS)
@few
@given(data=st.data())
def test_orders(dtype: Any, data: st.DataObject, inferred: Inferred) -> None:
    """Of equal values MIL promises no order, so there are none."""
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=4))
    values = data.draw(st.permutations(range(-7, math.prod(shape) - 7)))
    x, axis = (
        np.array(values, dtype).reshape(shape),
        data.draw(st.integers(-len(shape), len(shape) - 1)),
    )
    up, k = data.draw(st.booleans()), data.draw(st.integers(1, shape[axis]))
    for name in ("reduce_argmax", "reduce_argmin"):
        (expected,), (found,) = inferred(lambda: getattr(mb, name)(x=x, axis=axis, keep_dims=up))
        np.testing.assert_array_equal(found.numpy(), expected)
    (expected,), (found,) = inferred(lambda: mb.argsort(x=x, axis=axis, ascending=up))
    np.testing.assert_array_equal(found.numpy(), expected)
    expected, found = inferred(lambda: mb.topk(x=x, k=k, axis=axis, ascending=up))
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])
    (only,) = inferred(lambda: mb.topk(x=x, k=k, axis=axis, ascending=up, return_indices=False))[1]
    assert torch.equal(only, found[0])


def test_of_equal_values_the_first_comes_first(kernel: Inferred) -> None:
    x = np.array([3, 1, 3, 1], np.float32)
    assert kernel("topk", ["FLOAT32", "INT32"], x=x, k=-1)[1].tolist() == [0, 2, 1, 3]
    assert kernel("argsort", ["INT32"], x=x, ascending=True)[0].tolist() == [1, 3, 0, 2]
    assert kernel("reduce_argmax", ["INT32"], x=x)[0].item() == 0


@pytest.mark.parametrize("dtype", NUMBERS)
@few
@given(data=st.data())
def test_running_sums(dtype: Any, data: st.DataObject, inferred: Inferred, within: Within) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=4, max_side=5))
    elements: Any = st.integers(-9, 9) if dtype is np.int32 else st.floats(-60, 60, width=16)
    x = data.draw(hnp.arrays(dtype, shape, elements=elements))
    axis, reverse = data.draw(st.integers(-1, len(shape) - 1)), data.draw(st.booleans())
    (expected,), (found,) = inferred(lambda: mb.cumsum(x=x, axis=axis, reverse=reverse))
    if dtype is np.int32:
        np.testing.assert_array_equal(found.numpy(), expected)
        return
    wide = np.flip(x, axis).astype(np.float64) if reverse else x.astype(np.float64)
    exact, most = np.cumsum(wide, axis), np.cumsum(np.abs(wide), axis)
    if reverse:
        exact, most = np.flip(exact, axis), np.flip(most, axis)
    within(found, exact, 1, shape[axis] * U * most)


@pytest.mark.parametrize("reverse", [False, True])
def test_running_sums_without_the_element_itself(reverse: bool, kernel: Inferred) -> None:
    """Coremltools' inference of ``exclusive`` fails: it gives numpy an array for a type."""
    x = np.array([[1, 2, np.inf, 4], [5, 6, 7, 8]], np.float32)
    (found,) = kernel("cumsum", ["FLOAT32"], x=x, axis=1, exclusive=True, reverse=reverse)
    forward = [[0, 1, 3, math.inf], [0, 5, 11, 18]]
    back = [[math.inf, math.inf, 4, 0], [21, 15, 8, 0]]
    assert found.tolist() == (back if reverse else forward)


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(
    ("x_shape", "y_shape", "turned"),
    [
        ((3, 4), (4, 2), (False, False)),
        ((4,), (2, 4, 3), (False, False)),
        ((5, 1, 3, 4), (2, 4, 1), (False, False)),
        ((2, 4, 3), (4, 5), (True, False)),
        ((2, 3, 4), (1, 5, 4), (False, True)),
        ((4, 3), (6, 2, 5, 4), (True, True)),
    ],
)
def test_products_of_matrices(
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    turned: tuple[bool, bool],
    dtype: Any,
    kernel: Inferred,
    inferred: Inferred,
    within: Within,
) -> None:
    x, y = (_normal(shape, dtype) for shape in (x_shape, y_shape))
    (found,) = kernel(
        "matmul", [_name(dtype)], x=x, y=y, transpose_x=turned[0], transpose_y=turned[1]
    )
    if x.ndim > 1:  # Of a vector times matrices coremltools declares another shape than it infers.
        (expected,), (again,) = inferred(
            lambda: mb.matmul(x=x, y=y, transpose_x=turned[0], transpose_y=turned[1])
        )
        assert expected.shape == found.shape and torch.equal(again, found)
    left = np.swapaxes(x, -1, -2) if turned[0] else x
    right = np.swapaxes(y, -1, -2) if turned[1] else y
    if dtype is np.int32:
        np.testing.assert_array_equal(found.numpy(), left @ right)
    else:
        within(found, *_product(left, right))


def _normal(shape: tuple[int, ...], dtype: Any, seed: int = 0) -> np.ndarray:
    found: np.ndarray = np.random.default_rng([seed, *shape]).normal(0, 5, shape).astype(dtype)
    return found


def _name(dtype: Any) -> str:
    return np.dtype(dtype).name.upper()


def _product(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, float, np.ndarray]:
    """Exact; how often each term is rounded, relative to the sum of their sizes."""
    wide, other = x.astype(np.float64), y.astype(np.float64)
    return wide @ other, 1, (x.shape[-1] + 1) * U * (np.abs(wide) @ np.abs(other))


@pytest.mark.parametrize("weights", NUMBERS)
@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7)])
def test_linear_and_matmul_of_two_types(
    shape: tuple[int, ...], dtype: Any, weights: Any, kernel: Inferred, within: Within
) -> None:
    """From iOS 17 on weights may have a type of their own; coremltools' inference adds in it."""
    x, w, b = _normal(shape, dtype), _normal((4, 7), weights, 1), _normal((4,), weights, 2)
    exact, roundings, slack = _product(x, w.T)
    declared = [_name(dtype)]
    (found,) = kernel("linear", declared, x=x, weight=w, bias=b)
    (product,) = kernel("matmul", declared, x=x, y=w, transpose_y=True)
    if dtype is np.int32:
        np.testing.assert_array_equal(found.numpy(), np.trunc((exact + b).astype(np.float32)))
        np.testing.assert_array_equal(product.numpy(), np.trunc(exact.astype(np.float32)))
        return
    within(found, exact + b, roundings, slack + U * np.abs(exact))
    within(product, exact, roundings, slack)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    ("equation", "x_shape", "y_shape"),
    [
        ("nchw,nwhu->nchu", (2, 3, 4, 5), (2, 5, 4, 6)),
        ("abcd,adce->abce", (1, 3, 4, 5), (2, 5, 1, 6)),
        ("chw,whr->chr", (3, 1, 5), (5, 4, 2)),
    ],
)
def test_einsum(
    equation: str,
    x_shape: tuple[int, ...],
    y_shape: tuple[int, ...],
    dtype: Any,
    inferred: Inferred,
    within: Within,
) -> None:
    x, y = _normal(x_shape, dtype), _normal(y_shape, dtype, 1)
    _, (found,) = inferred(lambda: mb.einsum(values=(x, y), equation=equation))
    wide, other = x.astype(np.float64), y.astype(np.float64)
    exact = np.einsum(equation, wide, other)
    most = np.einsum(equation, np.abs(wide), np.abs(other))
    within(found, exact, 1, (x_shape[-1] + 1) * U * most)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("mask", [None, "bool", "float", "row"])
@pytest.mark.parametrize("lead", [(2,), (2, 3)])
def test_attention(
    lead: tuple[int, ...],
    mask: str | None,
    dtype: Any,
    inferred: Inferred,
    within: Within,
    formula: Formula,
) -> None:
    query, key, value = (
        (_normal((*lead, n, e), dtype, n) / 4).astype(dtype) for n, e in ((5, 8), (7, 8), (7, 3))
    )
    given: Any = {
        "bool": np.random.default_rng(0).random((*lead, 5, 7)) < 0.7,
        "float": _normal((5, 7), dtype),
        "row": np.arange(7) < 4,
    }.get(mask or "")
    if mask == "bool":
        given[..., 0] = True  # A row of which nothing takes part has no softmax.
    _, (found,) = inferred(
        lambda: mb.scaled_dot_product_attention(query=query, key=key, value=value, attn_mask=given)
    )
    exact = formula(
        "scaled_dot_product_attention", query=query, key=key, value=value, attn_mask=given
    )
    # An absolute error of a score is a relative one of its weight, above and below the line.
    wide = np.abs(query.astype(np.float64)) @ np.abs(key.astype(np.float64)).swapaxes(-1, -2)
    score = (
        (8 + 3) * U * (wide.max() / math.sqrt(8) + (np.abs(given).max() if mask == "float" else 0))
    )
    within(found, exact, 1, (2 * score + (7 + 7 + 8) * U) * np.abs(value).max().astype(np.float64))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("axes", [[-1], [1, 2], [0, 2], None, [-2, -1]])
def test_layer_norm(
    axes: list[int] | None, dtype: Any, kernel: Inferred, inferred: Inferred, within: Within
) -> None:
    x = _normal((3, 4, 6), dtype)
    over = tuple(sorted(a % 3 for a in (axes or range(3))))
    gamma, beta = (_normal(tuple(x.shape[a] for a in over), dtype, i) for i in (1, 2))
    epsilon = dtype(1e-3)
    given = {"x": x, "gamma": gamma, "beta": beta, "epsilon": epsilon}
    if axes is None:  # Which coremltools cannot build: its default is no constant.
        (found,) = kernel("layer_norm", [_name(dtype)], **given)
    else:
        _, (found,) = inferred(lambda: mb.layer_norm(axes=axes, **given))
    wide, shape = x.astype(np.float64), [n if i in over else 1 for i, n in enumerate(x.shape)]
    n = math.prod(shape)
    centred = wide - wide.mean(over, keepdims=True)
    deviation = np.sqrt((centred**2).mean(over, keepdims=True) + np.float64(epsilon))
    scale, shift = (v.astype(np.float64).reshape(shape) for v in (gamma, beta))
    # The mean is wrong by n roundings of the largest value; the rest is relative.
    slack = (n + 3) * U * np.abs(wide).max() / deviation * np.abs(scale)
    scaled = centred / deviation * scale
    within(found, scaled + shift, 1, 3 * slack + (n + 8) * U * np.abs(scaled))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("shape", [(3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 1, 4)])
def test_l2_norm(shape: tuple[int, ...], dtype: Any, inferred: Inferred, within: Within) -> None:
    x, epsilon = _normal(shape, dtype), dtype(1e-3)
    _, (found,) = inferred(lambda: mb.l2_norm(x=x, epsilon=epsilon))
    wide = x.astype(np.float64)
    squares = (wide**2).sum((-3, -2, -1), keepdims=True)
    within(found, wide / np.sqrt(squares + np.float64(epsilon)), math.prod(shape[-3:]) + 5)
