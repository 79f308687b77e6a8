"""Convolutions, pools, scattering and quantization against ONNX Runtime and torch.

Where inputs are small integers, sums are exact in float32 in any order, and have to be equal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch.nn import functional

Kernel = Callable[..., tuple[Any, ...]]
Within = Callable[..., None]

U = 2.0**-24
SAME = {"same": "SAME_UPPER", "same_lower": "SAME_LOWER"}


def onnx(op: str, *inputs: np.ndarray, **attributes: Any) -> np.ndarray:
    """The only result of one operator of ONNX."""
    names = [f"x{i}" for i in range(len(inputs))]
    kinds = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in inputs]
    result = {"QuantizeLinear": kinds[-1], "DequantizeLinear": TensorProto.FLOAT}
    graph = helper.make_graph(
        [
            helper.make_node(
                op, names, ["y"], **{k: v for k, v in attributes.items() if v is not None}
            )
        ],
        "one",
        [
            helper.make_tensor_value_info(n, k, x.shape)
            for n, k, x in zip(names, kinds, inputs, strict=True)
        ],
        [helper.make_tensor_value_info("y", result.get(op, kinds[0]), None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(None, dict(zip(names, inputs, strict=True)))
    return np.asarray(found)


def integers(generator: np.random.Generator, shape: Sequence[int]) -> np.ndarray:
    return generator.integers(-8, 9, tuple(shape)).astype(np.float32)


def onnx_pads(pad: Sequence[int]) -> list[int]:
    """Before every axis, then behind every axis."""
    return [*pad[::2], *pad[1::2]]


def pads(generator: np.random.Generator, pad_type: str, axes: int) -> dict[str, Any]:
    pad = generator.integers(0, 3, 2 * axes).tolist() if pad_type == "custom" else None
    return {"pad_type": pad_type, "pad": pad}


def auto_pad(pad_type: str, pad: list[int] | None) -> dict[str, Any]:
    if pad_type in SAME:
        return {"auto_pad": SAME[pad_type]}
    return {"pads": None if pad is None else onnx_pads(pad)}


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("pad_type", ["valid", "custom", "same", "same_lower"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_convolutions(axes: int, pad_type: str, dtype: Any, kernel: Kernel) -> None:
    for seed in range(12):
        generator = np.random.default_rng([axes, seed])
        groups, each, out = (int(generator.integers(1, 4)) for _ in range(3))
        sizes = generator.integers(1, 4, axes).tolist()
        # ONNX Runtime has no "same" with dilations, and none of strides beyond the kernel.
        dilations = [1] * axes if pad_type in SAME else generator.integers(1, 3, axes).tolist()
        most = sizes if pad_type in SAME else [3] * axes
        strides = [int(generator.integers(1, n + 1)) for n in most]
        spatial = [
            (k - 1) * d + 1 + int(generator.integers(0, 5))
            for k, d in zip(sizes, dilations, strict=True)
        ]
        x = integers(generator, [int(generator.integers(1, 3)), groups * each, *spatial])
        weight = integers(generator, [groups * out, each, *sizes])
        bias = integers(generator, [groups * out])
        padding = pads(generator, pad_type, axes)
        (found,) = kernel(
            "conv", [np.dtype(dtype).name.upper()], x=x.astype(dtype), weight=weight.astype(dtype),
            bias=bias.astype(dtype), strides=strides, dilations=dilations, groups=groups, **padding,
        )  # fmt: skip
        expected = onnx(
            "Conv", x, weight, bias, strides=strides, dilations=dilations, group=groups,
            **auto_pad(**padding),
        )  # fmt: skip
        np.testing.assert_array_equal(found.numpy(), expected.astype(dtype))


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("dilation", [1, 2, 3])
@pytest.mark.parametrize("size", [2, 3, 4])
def test_same_padding_with_dilations_is_torchs(size: int, dilation: int, kernel: Kernel) -> None:
    generator = np.random.default_rng(0)
    x, weight = integers(generator, (1, 2, 13)), integers(generator, (3, 2, size))
    given = {"weight": weight, "dilations": [dilation]}
    expected = functional.conv1d(
        torch.from_numpy(x), torch.from_numpy(weight), padding="same", dilation=dilation
    )
    assert torch.equal(kernel("conv", ["FLOAT32"], x=x, pad_type="same", **given)[0], expected)
    # What lies lower is what lies higher in a mirror.
    (mirrored,) = kernel(
        "conv", ["FLOAT32"], x=x[..., ::-1], pad_type="same_lower", dilations=[dilation],
        weight=weight[..., ::-1],
    )  # fmt: skip
    assert torch.equal(mirrored.flip(-1), expected)


def test_strides_beyond_the_kernel_take_no_padding(kernel: Kernel) -> None:
    """As in TensorFlow, whose formula coremltools infers shapes by."""
    x = np.arange(8, dtype=np.float32).reshape(1, 1, 8)
    for pad_type in SAME:
        given = {"x": x, "strides": [3], "pad_type": pad_type}
        weight = np.ones((1, 1, 1), np.float32)
        assert kernel("conv", ["FLOAT32"], weight=weight, **given)[0].tolist() == [[[0, 3, 6]]]
        found = kernel("max_pool", ["FLOAT32"], kernel_sizes=[1], **given)
        assert found[0].tolist() == [[[0, 3, 6]]]


@pytest.mark.parametrize("pad_type", ["valid", "custom", "same"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_transposed_convolutions(axes: int, pad_type: str, kernel: Kernel) -> None:
    for seed in range(12):
        generator = np.random.default_rng([axes, seed])
        groups, each, out = (int(generator.integers(1, 4)) for _ in range(3))
        sizes = generator.integers(1, 4, axes).tolist()
        dilations = generator.integers(1, 3, axes).tolist()
        extents = [(k - 1) * d + 1 for k, d in zip(sizes, dilations, strict=True)]
        strides = [int(generator.integers(1, min(3, e) + 1)) for e in extents]
        x = integers(generator, [2, groups * each, *generator.integers(5, 8, axes)])
        weight = integers(generator, [groups * each, out, *sizes])
        bias = integers(generator, [groups * out])
        pad = [int(generator.integers(0, (e + 1) // 2 + 1)) for e in extents for _ in range(2)]
        given: dict[str, Any] = {"pad_type": pad_type, "pad": pad if pad_type == "custom" else None}
        common = {"strides": strides, "dilations": dilations}
        (found,) = kernel(
            "conv_transpose",
            ["FLOAT32"],
            x=x,
            weight=weight,
            bias=bias,
            groups=groups,
            **common,
            **given,
        )
        expected = onnx(
            "ConvTranspose", x, weight, bias, group=groups, **common, **auto_pad(**given)
        )
        np.testing.assert_array_equal(found.numpy(), expected)
        if pad_type == "same":
            continue
        # A shape that is asked for: as torch's output_padding, more is kept behind.
        more = [int(generator.integers(0, s)) for s in strides]
        shape = [n + m for n, m in zip(expected.shape[2:], more, strict=True)]
        asked = [*expected.shape[:2], *shape]
        (found,) = kernel(
            "conv_transpose", ["FLOAT32"], x=x, weight=weight, bias=bias, groups=groups,
            output_shape=asked, **common, **given,
        )  # fmt: skip
        expected = onnx(
            "ConvTranspose",
            x,
            weight,
            bias,
            group=groups,
            output_padding=more,
            **common,
            **auto_pad(**given),
        )
        np.testing.assert_array_equal(found.numpy(), expected)


def test_a_transposed_convolution_that_leaves_gaps(kernel: Kernel) -> None:
    """As in TensorFlow: where no kernel reaches are zeros, those that lack behind the last."""
    x, weight = np.array([[[1, 2]]], np.float32), np.array([[[3]]], np.float32)
    (found,) = kernel(
        "conv_transpose", ["FLOAT32"], x=x, weight=weight, pad_type="same", strides=[3]
    )
    assert found.tolist() == [[[3, 0, 0, 6, 0, 0]]]


POOLS = {"max_pool": "MaxPool", "avg_pool": "AveragePool", "l2_pool": "LpPool"}


@pytest.mark.parametrize("pad_type", ["valid", "custom", "same", "same_lower"])
@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("name", POOLS)
def test_pools(name: str, axes: int, pad_type: str, kernel: Kernel, within: Within) -> None:
    for seed in range(10):
        generator = np.random.default_rng([axes, seed])
        sizes = generator.integers(1, 4, axes).tolist()
        strides = [int(generator.integers(1, k + 1)) for k in sizes]
        x = integers(generator, [2, 3, *(k + int(generator.integers(0, 5)) for k in sizes)])
        # ONNX Runtime takes no padding that a window would lie in as a whole.
        pad = [int(generator.integers(0, k)) for k in sizes for _ in range(2)]
        given: dict[str, Any] = {"pad_type": pad_type, "pad": pad if pad_type == "custom" else None}
        exclude = bool(seed % 2)
        options = {"exclude_padding_from_average": exclude} if name == "avg_pool" else {}
        (found,) = kernel(
            name, ["FLOAT32"], x=x, kernel_sizes=sizes, strides=strides, **given, **options
        )
        count = {"count_include_pad": int(not exclude)} if name == "avg_pool" else {}
        expected = onnx(
            POOLS[name], x, kernel_shape=sizes, strides=strides, **count, **auto_pad(**given)
        )
        within(found, expected, {"max_pool": 0, "avg_pool": 3, "l2_pool": 4}[name])


@pytest.mark.parametrize("exclude", [True, False])
@pytest.mark.parametrize(("axes", "sizes"), [(1, (5, 6, 7, 8)), (2, (6, 9))])
def test_pools_that_round_up_are_torchs(
    axes: int, sizes: tuple[int, ...], exclude: bool, kernel: Kernel, within: Within
) -> None:
    generator = np.random.default_rng(axes)
    for size, k, stride in itertools.product(sizes, (2, 3), (1, 2, 3)):
        for pad in range(k // 2 + 1):
            x = integers(generator, [2, 3, *[size] * axes])
            given = {
                "x": x, "kernel_sizes": [k] * axes, "strides": [stride] * axes, "ceil_mode": True,
                "pad_type": "custom", "pad": [pad] * 2 * axes,
            }  # fmt: skip
            largest = {1: functional.max_pool1d, 2: functional.max_pool2d}[axes]
            average = {1: functional.avg_pool1d, 2: functional.avg_pool2d}[axes]
            tensor = torch.from_numpy(x)
            if pad == 0 and (size - k) % stride and -(-(size - k) // stride) * stride >= size:
                continue  # Without padding MIL keeps a window that begins behind the end.
            expected = largest(tensor, k, stride, pad, ceil_mode=True)
            assert torch.equal(kernel("max_pool", ["FLOAT32"], **given)[0], expected)
            expected = average(tensor, k, stride, pad, True, not exclude)
            (found,) = kernel(
                "avg_pool", ["FLOAT32"], exclude_padding_from_average=exclude, **given
            )
            within(found, expected.numpy(), 3)
            squares = average((tensor * tensor).double(), k, stride, pad, True, True)
            if pad == 0 and (size - k) % stride == 0:
                (found,) = kernel("l2_pool", ["FLOAT32"], **given)
                within(found, (squares * k**axes).sqrt().numpy(), 4)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("padding", ["constant", "border", "reflection", "symmetric"])
@pytest.mark.parametrize(
    "coordinates", ["normalized_minus_one_to_one", "normalized_zero_to_one", "unnormalized"]
)
def test_resampling(
    coordinates: str, padding: str, mode: str, kernel: Kernel, within: Within
) -> None:
    generator = np.random.default_rng(0)
    x = integers(generator, [2, 3, 5, 7])
    grid = generator.uniform(-1.7, 1.7, (2, 4, 6, 2)).astype(np.float32)
    for corners in (True, False):
        if coordinates == "unnormalized" and not corners:
            continue
        # Where the edge lies decides what can be mirrored: at it, or without it.
        if padding in ("reflection", "symmetric") and (padding == "reflection") != corners:
            continue
        places = {
            "normalized_minus_one_to_one": grid,
            "normalized_zero_to_one": (grid + 1) / 2,
            "unnormalized": (grid + 1) / 2 * np.array([6, 4], np.float32),
        }[coordinates]
        (found,) = kernel(
            "resample", ["FLOAT32"], x=x, coordinates=places, sampling_mode=mode,
            padding_mode=padding, padding_value=np.float32(0), coordinates_mode=coordinates,
            align_corners=corners,
        )  # fmt: skip
        modes = {"constant": "zeros", "border": "border"}
        expected = onnx(
            "GridSample", x, grid, mode={"bilinear": "linear"}.get(mode, mode),
            padding_mode=modes.get(padding, "reflection"), align_corners=int(corners),
        )  # fmt: skip
        # A place is scaled there and back, and mirrored: ten roundings of at most 2.7 · 7; between
        # neighbours lie at most 16, along two axes, on either side of the comparison.
        within(found, expected, 8, 0 if mode == "nearest" else 10 * U * 19 * 16 * 2 * 2)


@pytest.mark.parametrize("corners", [True, False])
def test_what_lies_outside_is_padded_with_a_value(corners: bool, kernel: Kernel) -> None:
    """And what lies inside is not touched by it. Whole places are pixels, wherever corners lie."""
    x = np.array([[[[1e-3, 2e-3], [np.inf, 4e-3]]]], np.float32)
    places = np.array([[[[0, 0], [1, 0], [0, 1], [1, 1], [5, 5], [-3, 0]]]], np.float32)
    (found,) = kernel(
        "resample", ["FLOAT32"], x=x, coordinates=places, sampling_mode="nearest",
        padding_mode="constant", padding_value=np.float32(1e6), coordinates_mode="unnormalized",
        align_corners=corners,
    )  # fmt: skip
    np.testing.assert_array_equal(found.numpy().ravel(), [*x.ravel(), 1e6, 1e6])


@pytest.mark.parametrize("block", [2, 3])
def test_depth_and_space(block: int, kernel: Kernel) -> None:
    x = np.arange(2 * 2 * block**2 * 3 * 4, dtype=np.float32).reshape(2, 2 * block**2, 3, 4)
    (found,) = kernel("depth_to_space", ["FLOAT32"], x=x, block_size=block)
    expected = onnx("DepthToSpace", x, blocksize=block, mode="DCR")
    np.testing.assert_array_equal(found.numpy(), expected)
    (back,) = kernel("space_to_depth", ["FLOAT32"], x=expected, block_size=block)
    np.testing.assert_array_equal(back.numpy(), onnx("SpaceToDepth", expected, blocksize=block))


@pytest.mark.parametrize("batch", [0, 1, 2])
@pytest.mark.parametrize("depth", [1, 2])
def test_gathering_at_places(batch: int, depth: int, kernel: Kernel) -> None:
    generator = np.random.default_rng(0)
    x = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    limits = np.array(x.shape[batch : batch + depth])
    indices = generator.integers(-limits, limits, (*x.shape[:batch], 6, depth))
    (found,) = kernel(
        "gather_nd", ["FLOAT32"], x=x, indices=indices.astype(np.int32), batch_dims=batch
    )
    np.testing.assert_array_equal(found.numpy(), onnx("GatherND", x, indices, batch_dims=batch))


MODES: dict[str, tuple[str | None, Callable[[Any, Any], Any]]] = {
    "update": ("none", lambda old, new: new), "add": ("add", lambda old, new: old + new),
    "mul": ("mul", lambda old, new: old * new), "max": ("max", max), "min": ("min", min),
    "sub": (None, lambda old, new: old - new), "div": (None, lambda old, new: old / new),
}  # fmt: skip


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32])
@pytest.mark.parametrize("mode", MODES)
def test_scattering(mode: str, dtype: Any, kernel: Kernel) -> None:
    """With updates that meet in one place, but where the last one would have to be known."""
    generator = np.random.default_rng(0)
    reduction, combine = MODES[mode]
    declared = [np.dtype(dtype).name.upper()]
    data = (generator.integers(-4, 5, (4, 5)) * 64).astype(dtype)
    # Powers of two, so that quotients are exact.
    updates = (2.0 ** generator.integers(0, 3, (3, 5))).astype(dtype)

    columns = np.stack([generator.permutation(4)[:3] for _ in range(5)], 1)
    indices = columns if mode == "update" else generator.integers(-4, 4, (3, 5))
    (found,) = kernel(
        "scatter_along_axis", declared, data=data, indices=indices.astype(np.int32),
        updates=updates, axis=0, mode=mode,
    )  # fmt: skip
    expected = data.copy()
    for place in np.ndindex(indices.shape):
        target = indices[place], place[1]
        expected[target] = combine(expected[target], updates[place])
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    if reduction is not None and dtype is np.float32:
        peer = onnx("ScatterElements", data, indices, updates, axis=0, reduction=reduction)
        np.testing.assert_array_equal(found.numpy(), peer)

    rows = np.array([[2], [0], [3]]) if mode == "update" else np.array([[2], [-4], [2]])
    for axis, given, change in ((0, data, updates), (-1, data.T, updates.T)):
        (found,) = kernel(
            "scatter", declared, data=given, indices=rows[:, 0].astype(np.int32), updates=change,
            axis=axis, mode=mode,
        )  # fmt: skip
        expected = data.copy()
        for i, row in enumerate(rows[:, 0]):
            expected[row] = [
                combine(old, new) for old, new in zip(expected[row], updates[i], strict=True)
            ]
        np.testing.assert_array_equal(found.numpy(), expected.T if axis else expected)
    (found,) = kernel(
        "scatter_nd", declared, data=data, indices=rows.astype(np.int32), updates=updates, mode=mode
    )
    np.testing.assert_array_equal(found.numpy(), expected)
    if reduction is not None and dtype is np.float32:
        peer = onnx("ScatterND", data, rows, updates, reduction=reduction)
        np.testing.assert_array_equal(found.numpy(), peer)


@pytest.mark.parametrize("source", [np.float32, np.float16])
@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("axis", [None, 1, -3])
def test_quantization(axis: int | None, dtype: Any, source: Any, kernel: Kernel) -> None:
    """Ties to even, and the ends; a float16's number is divided in float32."""
    generator = np.random.default_rng(0)
    ties = np.arange(-300, 300) * 0.25
    x = np.concatenate([ties, generator.normal(0, 60, 3000)]).astype(source).reshape(3, 4, 300)
    x[0, 0, :4] = [-0.0, 1e4, -1e4, 60000]
    if axis is None:
        scale: Any = source(0.5)
        zero: Any = dtype(7)
    else:
        n = x.shape[axis]
        scale = generator.uniform(0.01, 2, n).astype(source)
        scale[0] = 0.5
        low = 0 if dtype is np.uint8 else -128
        zero = generator.integers(low, low + 256, n).astype(dtype)
    name = np.dtype(dtype).name
    given = {"scale": scale, "zero_point": zero, "axis": axis}
    (found,) = kernel("quantize", [name.upper()], input=x, output_dtype=name, **given)
    wide, wide_scale = x.astype(np.float32), np.asarray(scale, np.float32)
    expected = onnx("QuantizeLinear", wide, wide_scale, np.asarray(zero), axis=axis)
    np.testing.assert_array_equal(found.numpy(), expected, strict=True)
    (back,) = kernel("dequantize", [np.dtype(source).name.upper()], input=expected, **given)
    reals = onnx("DequantizeLinear", expected, wide_scale, np.asarray(zero), axis=axis)
    np.testing.assert_array_equal(back.numpy(), reals.astype(source), strict=True)
    (plain,) = kernel("dequantize", ["FLOAT32"], input=expected, scale=np.float32(0.25))
    np.testing.assert_array_equal(plain.numpy(), expected * np.float32(0.25))


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("rank", [3, 4, 5])
def test_batch_and_instance_norms(rank: int, dtype: Any, kernel: Kernel, within: Within) -> None:
    generator = np.random.default_rng(rank)
    x = generator.normal(1, 4, (2, 3, 4, 5, 2)[:rank]).astype(dtype)
    mean, gamma, beta = generator.normal(0, 2, (3, 3)).astype(dtype)
    variance = generator.uniform(0.01, 4, 3).astype(dtype)
    epsilon, declared = dtype(1e-3), [np.dtype(dtype).name.upper()]
    wide = x.astype(np.float64)
    m, v, g, b = (
        p.astype(np.float64).reshape(3, *[1] * (rank - 2)) for p in (mean, variance, gamma, beta)
    )
    (found,) = kernel(
        "batch_norm", declared, x=x, mean=mean, variance=variance, gamma=gamma, beta=beta,
        epsilon=epsilon,
    )  # fmt: skip
    factor = g / np.sqrt(v + np.float64(epsilon))
    # Torch folds the mean into the shift: what cancels is as large as x and the mean, scaled.
    slack = 10 * U * (np.abs(factor) * (np.abs(wide) + np.abs(m)) + np.abs(b))
    within(found, (wide - m) * factor + b, 1, slack)

    (found,) = kernel("instance_norm", declared, x=x, gamma=gamma, beta=beta, epsilon=epsilon)
    over = tuple(range(2, rank))
    centred = wide - wide.mean(over, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(over, keepdims=True) + np.float64(epsilon)) * g
    n = math.prod(x.shape[2:])
    # The mean is wrong by n roundings of the largest, and the deviation is at least 1 here.
    assert (centred**2).mean(over).min() > 1
    slack = 3 * (n + 3) * U * np.abs(wide).max() * np.abs(g) + (n + 8) * U * np.abs(scaled)
    within(found, scaled + b, 1, slack)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("shape", [(2, 6, 4), (1, 5, 3, 2)])
def test_local_response_norm(
    shape: tuple[int, ...], size: int, kernel: Kernel, within: Within
) -> None:
    """As torch's, which coremltools compares Core ML with: of an even size one more lies before."""
    x = np.random.default_rng(0).normal(0, 20, shape).astype(np.float32)
    numbers = {"alpha": np.float32(0.01), "beta": np.float32(0.75), "k": np.float32(2)}
    (found,) = kernel("local_response_norm", ["FLOAT32"], x=x, size=size, **numbers)
    squares, expected = x.astype(np.float64) ** 2, np.empty(shape)
    for c in range(shape[1]):
        near = squares[:, max(0, c - size // 2) : c + (size - 1) // 2 + 1].sum(1)
        alpha, k = float(numbers["alpha"]), float(numbers["k"])
        expected[:, c] = x[:, c] / (k + alpha / size * near) ** 0.75
    # size additions and four roundings of a sum, whose power 0.75 halves no error.
    within(found, expected, size + 4 + 3)
