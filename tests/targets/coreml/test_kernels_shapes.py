"""Operations that move values: nothing is computed, so every value and type has to be equal.

Against coremltools' value inference where it is right, else against numpy written out here.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

Inferred = Callable[..., tuple[list[Any], tuple[Any, ...]]]

few = settings(max_examples=40, deadline=None, derandomize=True)
PLAIN = [np.float16, np.float32, np.int32, np.bool_]
"""What every opset takes."""


def numbered(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Values of which no two are equal, so that none can be taken for another."""
    if dtype is np.bool_:
        return np.random.default_rng(0).random(shape) < 0.5
    return (np.arange(math.prod(shape)).reshape(shape) - 3).astype(dtype)


@st.composite
def tensors(draw: st.DrawFn, rank: tuple[int, int] = (1, 5), dtypes: Any = PLAIN) -> np.ndarray:
    shape = draw(hnp.array_shapes(min_dims=rank[0], max_dims=rank[1], max_side=4))
    return numbered(shape, draw(st.sampled_from(dtypes)))


def axis_of(x: np.ndarray) -> st.SearchStrategy[int]:
    return st.integers(-x.ndim, x.ndim - 1)


def some_axes(x: np.ndarray) -> st.SearchStrategy[list[int]]:
    return st.lists(axis_of(x), min_size=1, unique_by=lambda a: a % x.ndim)


def per_axis(x: np.ndarray, element: Callable[[int], Any]) -> st.SearchStrategy[list[Any]]:
    return st.tuples(*(element(n) for n in x.shape)).map(list)


@st.composite
def transposing(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    order = draw(st.permutations(range(x.ndim)))
    return {"x": x, "perm": [a - x.ndim * draw(st.booleans()) for a in order]}


@st.composite
def expanding(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors((1, 3)))
    rank = x.ndim + draw(st.integers(1, 2))
    places = st.lists(
        st.integers(-rank, rank - 1),
        min_size=rank - x.ndim,
        max_size=rank - x.ndim,
        unique_by=lambda a: a % rank,
    )
    return {"x": x, "axes": draw(places)}


@st.composite
def squeezing(draw: st.DrawFn) -> dict[str, Any]:
    # Of a matrix of one number coremltools infers a vector, though it declares a scalar.
    x = draw(tensors().filter(lambda x: x.size > 1 or x.ndim == 1))
    ones = [a for a, n in enumerate(x.shape) if n == 1]
    # An axis longer than one stays, says MIL; coremltools' inference fails of it, see below.
    some = st.lists(st.sampled_from(ones), min_size=1, unique=True) if ones else st.none()
    return {"x": x, "axes": draw(st.none() | some)}


@st.composite
def reshaping(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    shape = list(draw(st.permutations(x.shape)))
    if draw(st.booleans()):
        shape = [*x.shape[:1], 0, *x.shape[2:]] if x.ndim > 1 else [0]
    elif draw(st.booleans()):
        shape[draw(st.integers(0, x.ndim - 1))] = -1
    return {"x": x, "shape": shape}


@st.composite
def slicing(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    begin = draw(per_axis(x, lambda n: st.integers(-n, n - 1)))
    stride = draw(per_axis(x, lambda n: st.sampled_from([1, 1, 2, 3, -1, -2])))
    masks = {m: draw(per_axis(x, lambda n: st.booleans())) for m in ("begin_mask", "end_mask")}
    end = []
    for axis, (first, step, n) in enumerate(zip(begin, stride, x.shape, strict=True)):
        first %= n
        end.append(draw(st.integers(first + 1, n) if step > 0 else st.integers(-1, first - 1)))
        # Before the first element: Python has no number for that, so MIL takes a mask.
        masks["end_mask"][axis] |= end[-1] < 0
    squeeze = draw(per_axis(x, lambda n: st.integers(0, 4).map(lambda k: k == 0)))
    if x.dtype not in (np.float32, np.int32):  # Coremltools infers no other scalars.
        squeeze[0] = False
    given = {"x": x, "begin": begin, "end": end, "stride": stride, **masks, "squeeze_mask": squeeze}
    return {p: np.array(v) if p != "x" else v for p, v in given.items()}


@st.composite
def taking(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    begin = draw(per_axis(x, lambda n: st.integers(0, n - 1)))
    sizes = [draw(st.integers(1, n - b)) for b, n in zip(begin, x.shape, strict=True)]
    size = [
        s if b + s < n or draw(st.booleans()) else -1
        for b, s, n in zip(begin, sizes, x.shape, strict=True)
    ]
    begin = [
        b - n * draw(st.booleans()) if s != -1 else b
        for b, s, n in zip(begin, size, x.shape, strict=True)
    ]
    return {"x": x, "begin": begin, "size": size}


@st.composite
def padding(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors(dtypes=[np.float16, np.float32]))
    mode = draw(st.sampled_from(["constant", "reflect", "replicate"]))
    axes = x.shape[draw(st.integers(0, x.ndim - 1)) :]
    most = {"constant": lambda n: 3, "reflect": lambda n: n - 1, "replicate": lambda n: n}[mode]
    pad = [draw(st.integers(0, most(n))) for n in axes for _ in range(2)]
    return {
        "x": x,
        "pad": pad,
        "mode": mode,
        "constant_val": x.dtype.type(draw(st.sampled_from([0, -7.5]))),
    }


@st.composite
def gathering(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors(dtypes=PLAIN[:3]))
    axis = draw(axis_of(x))
    n = x.shape[axis]
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, max_side=3))
    indices = draw(hnp.arrays(np.int32, shape, elements=st.integers(-n, n - 1)))
    return {"x": x, "indices": indices, "axis": axis}


@st.composite
def gathering_in_batches(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors((2, 4), PLAIN[:3]))
    batch = draw(st.integers(1, x.ndim - 1))
    axis = draw(st.integers(batch, x.ndim - 1))
    n, more = x.shape[axis], draw(hnp.array_shapes(min_dims=0, max_dims=2, max_side=3))
    indices = draw(hnp.arrays(np.int32, (*x.shape[:batch], *more), elements=st.integers(-n, n - 1)))
    return {"x": x, "indices": indices, "axis": axis, "batch_dims": batch}


@st.composite
def gathering_along(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors(dtypes=PLAIN[:3]))
    axis = draw(axis_of(x))
    n, shape = x.shape[axis], list(x.shape)
    shape[axis] = draw(st.integers(1, 5))
    indices = draw(hnp.arrays(np.int32, tuple(shape), elements=st.integers(-n, n - 1)))
    return {"x": x, "indices": indices, "axis": axis}


@st.composite
def joining(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    axis = draw(axis_of(x))
    values = []
    for i in range(draw(st.integers(1, 3))):
        shape = list(x.shape)
        shape[axis] = draw(st.integers(1, 3))
        values.append(numbered(tuple(shape), x.dtype.type) if i else x)
    return {"values": values, "axis": axis}


@st.composite
def splitting(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors())
    axis = draw(axis_of(x))
    n = x.shape[axis]
    cut = draw(st.integers(1, n))
    if cut == n and n > 1 and draw(st.booleans()):
        return {"x": x, "axis": axis, "num_splits": n}
    return {"x": x, "axis": axis, "split_sizes": [cut, n - cut] if cut < n else [n]}


@st.composite
def stacking(draw: st.DrawFn) -> dict[str, Any]:
    x = draw(tensors((1, 4)))
    values = [
        numbered(x.shape, x.dtype.type) + (x.dtype.type(i) if x.dtype != np.bool_ else False)
        for i in range(3)
    ]
    return {"values": values, "axis": draw(st.integers(-x.ndim, x.ndim))}


MOVES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "transpose": transposing(),
    "expand_dims": expanding(),
    "squeeze": squeezing(),
    "reshape": reshaping(),
    "slice_by_index": slicing(),
    "slice_by_size": taking(),
    "pad": padding(),
    "gather": gathering(),
    "gather ": gathering_in_batches(),
    "gather_along_axis": gathering_along(),
    "concat": joining(),
    "split": splitting(),
    "stack": stacking(),
    "shape": tensors().map(lambda x: {"x": x}),
    "identity": tensors().map(lambda x: {"x": x}),
    "non_zero": tensors().map(lambda x: {"x": x}),
    "flatten2d": tensors((2, 5)).flatmap(
        lambda x: st.integers(1, x.ndim - 1).flatmap(
            lambda a: st.sampled_from([{"x": x, "axis": a}, {"x": x, "axis": a - x.ndim}])
        )
    ),
    "reverse": tensors().flatmap(lambda x: (st.none() | some_axes(x)).map(lambda a: {"x": x, "axes": a})),
    "tile": tensors((1, 4)).flatmap(lambda x: per_axis(x, lambda n: st.integers(1, 3)).map(lambda r: {"x": x, "reps": r})),
    "band_part": tensors((2, 4), PLAIN).flatmap(
        lambda x: st.tuples(st.integers(-1, 3), st.integers(-1, 3)).map(
            lambda b: {"x": x, "lower": b[0], "upper": b[1]}
        )
    ),
    "fill": tensors((0, 4)).map(lambda x: {"shape": np.array(x.shape or (1,), np.int32), "value": x.dtype.type(1)}),
    "fill_like": tensors().map(lambda x: {"ref_tensor": x, "value": np.float16(-2)}),
}  # fmt: skip

SINCE_IOS16 = ("gather ", "fill_like")


@pytest.mark.parametrize("name", MOVES)
@few
@given(data=st.data())
def test_moves(name: str, data: st.DataObject, inferred: Inferred) -> None:
    oldest = ct.target.iOS16 if name in SINCE_IOS16 else ct.target.iOS15
    opset = data.draw(st.sampled_from([oldest, ct.target.iOS17, ct.target.iOS18]))
    arguments = data.draw(MOVES[name])
    expected, found = inferred(lambda: getattr(mb, name.strip())(**arguments), opset)
    for one, other in zip(expected, found, strict=True):
        assert other.dtype == torch.from_numpy(np.array(one)).dtype or name == "non_zero"
        np.testing.assert_array_equal(other.numpy(), one)


@few
@given(arguments=slicing())
def test_a_slice_that_is_updated_is_the_one_that_is_taken(
    arguments: dict[str, Any], kernel: Inferred, inferred: Inferred
) -> None:
    x = arguments["x"]
    declared = [np.dtype(x.dtype).name.upper()]
    (piece,) = kernel("slice_by_index", declared, **arguments)
    update = numbered(tuple(piece.shape), x.dtype.type)
    (found,) = kernel("slice_update", declared, update=update, **arguments)
    (again,) = kernel("slice_by_index", declared, **arguments | {"x": found.numpy()})
    np.testing.assert_array_equal(again.numpy(), update)
    if piece.ndim:  # Coremltools updates no single value.
        (expected,), (found,) = inferred(lambda: mb.slice_update(update=update, **arguments))
        np.testing.assert_array_equal(found.numpy(), expected)


def test_slices_of_nothing(kernel: Inferred) -> None:
    x = numbered((3, 4))
    empty = {"x": x, "begin": [2, 0], "end": [1, 4]}
    assert kernel("slice_by_index", ["FLOAT32"], **empty)[0].shape == (0, 4)
    update = np.zeros((0, 4), np.float32)
    (found,) = kernel("slice_update", ["FLOAT32"], update=update, **empty)
    np.testing.assert_array_equal(found.numpy(), x)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_updates_along_an_axis(axis: int, inferred: Inferred) -> None:
    """Coremltools' inference updates whatever the mode is; the others are held against ONNX."""
    data = numbered((4, 3, 5))
    shape = list(data.shape)
    shape[axis] = 2
    indices = np.argsort(np.random.default_rng(0).random(data.shape), axis).astype(np.int32)
    indices = indices.take([0, 1], axis)
    given = {"data": data, "indices": indices, "updates": numbered(tuple(shape)) + 100}
    (expected,), (found,) = inferred(
        lambda: mb.scatter_along_axis(axis=axis, mode="update", **given)
    )
    np.testing.assert_array_equal(found.numpy(), expected)


def test_axes_longer_than_one_are_not_squeezed(kernel: Inferred) -> None:
    """As MIL says; coremltools' inference fails of them."""
    (found,) = kernel("squeeze", ["FLOAT32"], x=numbered((2, 1, 3)), axes=[0, 1])
    assert found.shape == (2, 3)


def test_flattening_all_axes(kernel: Inferred) -> None:
    """Coremltools' inference fails of it: its product of no sizes is a float."""
    assert kernel("flatten2d", ["FLOAT32"], x=numbered((2, 3)), axis=0)[0].shape == (1, 6)
    assert kernel("flatten2d", ["FLOAT32"], x=numbered((3,)), axis=-1)[0].shape == (1, 3)


def test_zeros_in_a_shape_count_from_the_end(inferred: Inferred) -> None:
    """The example in coremltools' documentation of iOS 17."""
    (expected,), (found,) = inferred(lambda: mb.reshape(x=numbered((2, 50)), shape=[1, 0, -1, 0]))
    assert expected.shape == found.shape == (1, 1, 2, 50)


def test_shapes_are_put_together_of_others(kernel: Inferred) -> None:
    """The example in coremltools' documentation; it infers no values."""
    x = numbered((2, 3, 5, 6))
    others = (np.zeros((2, 3, 4), np.float32), np.zeros((1, 5, 6), np.float32))
    (found,) = kernel(
        "reshape_like", ["FLOAT32"],
        x=x.reshape(-1), ref_tensors=others, begins=[0, 1], ends=[2, 0], end_masks=[False, True],
    )  # fmt: skip
    np.testing.assert_array_equal(found.numpy(), x)


def test_scalars_are_joined_to_a_vector(inferred: Inferred) -> None:
    values = [np.int32(3), np.int32(-4)]
    (expected,), (found,) = inferred(lambda: mb.concat(values=values, axis=0))
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_interleaving(axis: int, kernel: Inferred) -> None:
    """Coremltools' inference joins one behind the other, whatever ``interleave`` says."""
    parts = [numbered((3, 2)) + 10 * i for i in range(3)]
    (found,) = kernel("concat", ["FLOAT32"], values=parts, axis=axis, interleave=True)
    moved = np.moveaxis(found.numpy(), axis, 0)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(moved[i::3], np.moveaxis(part, axis, 0))


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int32])
@pytest.mark.parametrize(
    ("start", "end", "step"),
    [(0, 7, 1), (5, -6, -2), (0, 1, 3), (-3, 10, 4), (0, 0.3, 0.1), (0, 1, 0.1), (2, 2.8, 0.4)],
)
def test_ranges(start: float, end: float, step: float, dtype: Any, inferred: Inferred) -> None:
    first, last, by = dtype(start), dtype(end), dtype(step)
    if by == 0:
        by = dtype(1)
    (expected,), (found,) = inferred(lambda: mb.range_1d(start=first, end=last, step=by))
    assert found.shape == expected.shape and found.numpy().dtype == dtype
    exact = first.astype(np.float64) + np.arange(len(expected)) * by.astype(np.float64)
    np.testing.assert_array_equal(found.numpy(), exact.astype(dtype))


@few
@given(data=st.data())
def test_one_hot(data: st.DataObject, kernel: Inferred) -> None:
    shape = data.draw(hnp.array_shapes(max_dims=3, max_side=3))
    indices = data.draw(hnp.arrays(np.int32, shape, elements=st.integers(-1, 5)))
    axis = data.draw(st.integers(-len(shape) - 1, len(shape)))
    (found,) = kernel(
        "one_hot", ["FLOAT32"], indices=indices, one_hot_vector_size=np.int32(4), axis=axis,
        on_value=np.float32(2.5), off_value=np.float32(-1),
    )  # fmt: skip
    moved = np.moveaxis(found.numpy(), axis, -1)
    for place in np.ndindex(shape):
        assert moved[place].tolist() == [2.5 if i == indices[place] else -1 for i in range(4)]


@few
@given(data=st.data())
def test_reversed_sequences(data: st.DataObject, kernel: Inferred) -> None:
    """Coremltools' inference of them is "TODO"."""
    x = data.draw(tensors((2, 4), [np.float32]))
    batch, sequence = data.draw(st.permutations(range(x.ndim)))[:2]
    n = x.shape[sequence]
    lengths = data.draw(hnp.arrays(np.int32, x.shape[batch], elements=st.integers(0, n)))
    (found,) = kernel(
        "reverse_sequence", ["FLOAT32"], x=x, lengths=lengths,
        seq_axis=sequence - x.ndim * data.draw(st.booleans()), batch_axis=batch,
    )  # fmt: skip
    expected = x.copy()
    for place in np.ndindex(x.shape):
        length = lengths[place[batch]]
        source = list(place)
        if place[sequence] < length:
            source[sequence] = length - 1 - place[sequence]
        expected[place] = x[tuple(source)]
    np.testing.assert_array_equal(found.numpy(), expected)


@pytest.mark.parametrize("axis", [0, 1, -1])
@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 3), (4, 1)])
def test_sliding_windows(axis: int, size: int, stride: int, kernel: Inferred) -> None:
    x = numbered((5, 4, 7))
    (found,) = kernel("sliding_windows", ["FLOAT32"], x=x, axis=axis, size=size, stride=stride)
    place = axis % 3
    windows = np.lib.stride_tricks.sliding_window_view(x, size, place)
    windows = np.moveaxis(windows, -1, place + 1)
    expected = windows[(*[slice(None)] * place, slice(None, None, stride))]
    np.testing.assert_array_equal(found.numpy(), expected)


def test_crop(kernel: Inferred) -> None:
    x = numbered((1, 2, 5, 6))
    (found,) = kernel("crop", ["FLOAT32"], x=x, crop_height=[1, 0], crop_width=[2, 3])
    np.testing.assert_array_equal(found.numpy(), x[:, :, 1:, 2:3])


@pytest.mark.parametrize("block", [2, 3])
def test_batches_of_spaces(block: int, kernel: Inferred) -> None:
    """As in TensorFlow, element by element."""
    x, pads = (
        numbered((2, 3, 4, 5)),
        np.array([[1, block - 5 % block], [0, (-5) % block]], np.int32),
    )
    pads[0, 1] = (-5) % block
    (found,) = kernel("space_to_batch", ["FLOAT32"], x=x, block_shape=[block, block], paddings=pads)
    wide = np.pad(x, ((0, 0), (0, 0), *map(tuple, pads)))
    for n, c, h, w in np.ndindex(*found.shape):
        place, sample = divmod(n, 2)
        expected = wide[sample, c, h * block + place // block, w * block + place % block]
        assert found[n, c, h, w] == expected
    (back,) = kernel(
        "batch_to_space", ["FLOAT32"], x=found.numpy(), block_shape=[block, block], crops=pads
    )
    np.testing.assert_array_equal(back.numpy(), x)


def test_pixel_shuffles_are_torchs(kernel: Inferred) -> None:
    x = numbered((2, 18, 4, 6))
    (found,) = kernel("pixel_shuffle", ["FLOAT32"], x=x, upscale_factor=3)
    for n, c, h, w in itertools.product(range(2), range(2), range(12), range(18)):
        assert found[n, c, h, w] == x[n, c * 9 + h % 3 * 3 + w % 3, h // 3, w // 3]
    (back,) = kernel("pixel_unshuffle", ["FLOAT32"], x=found.numpy(), downscale_factor=3)
    np.testing.assert_array_equal(back.numpy(), x)
