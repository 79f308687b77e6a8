"""Resizing against the formulas in coremltools' documentation, written out as loops."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from edgemix.errors import UnsupportedError

Kernel = Callable[..., tuple[Any, ...]]
Within = Callable[..., None]

U = 2.0**-24
MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS", "UNALIGN_CORNERS")

DOCUMENTED = {
    ("UNALIGN_CORNERS", 5): [0.0, 0.1, 0.5, 0.9, 1.0],
    ("STRICT_ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("ALIGN_CORNERS", 5): [0.0, 0.25, 0.5, 0.75, 1.0],
    ("DEFAULT", 5): [0.0, 0.4, 0.8, 1.0, 1.0],
    ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
    ("UNALIGN_CORNERS", 6): [0.0, 0.0, 1 / 3, 2 / 3, 1.0, 1.0],
    ("STRICT_ALIGN_CORNERS", 6): [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
    ("DEFAULT", 6): [0.0, 1 / 3, 2 / 3, 1.0, 1.0, 1.0],
    ("OFFSET_CORNERS", 6): [1 / 12, 3 / 12, 5 / 12, 7 / 12, 9 / 12, 11 / 12],
}  # fmt: skip


@pytest.mark.parametrize(("mode", "wanted"), DOCUMENTED)
def test_the_documented_points(mode: str, wanted: int, kernel: Kernel, within: Within) -> None:
    x = np.array([[[0.0, 1.0]]], np.float32)
    (found,) = kernel(
        "resize_bilinear", ["FLOAT32"], x=x, target_size_height=1, target_size_width=wanted,
        sampling_mode=mode,
    )  # fmt: skip
    within(found, [[DOCUMENTED[mode, wanted]]], 4)


def points(size: int, wanted: int, mode: str) -> list[Fraction]:
    """Coremltools' formulas of ``grid_point[i]``."""
    n, m = Fraction(size), Fraction(wanted)
    found = []
    for i in range(wanted):
        if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
            alone = (n - 1) / 2 if mode == "ALIGN_CORNERS" else Fraction(0)
            point = i * (n - 1) / (m - 1) if wanted > 1 else alone
        elif mode == "DEFAULT":
            point = i * (n - n / m) / (m - 1) if wanted > 1 else Fraction(0)
        elif mode == "OFFSET_CORNERS":
            delta = max(Fraction(1), n - 1) / m
            point = delta / 2 + i * delta
        else:
            point = i * n / m + n / m / 2 - Fraction(1, 2)
        found.append(min(n - 1, max(Fraction(0), point)))
    return found


def linear(x: np.ndarray, axis: int, places: list[Fraction]) -> np.ndarray:
    slices = []
    for place in places:
        low = math.floor(place)
        high, share = min(low + 1, x.shape[axis] - 1), float(place - low)
        slices.append(x.take(low, axis) * (1 - share) + x.take(high, axis) * share)
    return np.stack(slices, axis)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("sizes", [(1, 1), (1, 7), (5, 1), (8, 12), (3, 5), (4, 6)])
def test_bilinear(
    sizes: tuple[int, int], mode: str, dtype: Any, kernel: Kernel, within: Within
) -> None:
    x = np.random.default_rng(0).normal(0, 9, (2, 3, 4, 6)).astype(dtype)
    declared = [np.dtype(dtype).name.upper()]
    (found,) = kernel(
        "resize_bilinear", declared, x=x, target_size_height=sizes[0], target_size_width=sizes[1],
        sampling_mode=mode,
    )  # fmt: skip
    expected = x.astype(np.float64)
    for axis, wanted in enumerate(sizes, 2):
        expected = linear(expected, axis, points(x.shape[axis], wanted, mode))
    # Along each axis a difference, its share, a product and a sum are rounded.
    within(found, expected, 0, 2 * 8 * U * np.abs(x).max().astype(np.float64))
    (again,) = kernel(
        "resize", declared, x=x, shape=[2, 3, *sizes], resized_dims=np.uint32(2), sampling_mode=mode
    )
    assert torch.equal(again, found)


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("scales", [(2, 3), (1.5, 0.67), (3.17, 1.0)])
def test_upsampling_bilinearly_is_torchs(
    scales: tuple[float, float], corners: bool, kernel: Kernel, within: Within
) -> None:
    x = np.random.default_rng(0).normal(0, 9, (2, 3, 5, 6)).astype(np.float32)
    height, width = (np.float32(s) for s in scales)
    given = {"x": x, "scale_factor_height": height, "scale_factor_width": width}
    (found,) = kernel("upsample_bilinear", ["FLOAT32"], align_corners=corners, **given)
    sizes = [math.floor(5 * float(height)), math.floor(6 * float(width))]
    expected = functional.interpolate(
        torch.from_numpy(x).double(), sizes, mode="bilinear", align_corners=corners
    )
    within(found, expected.numpy(), 0, 2 * 8 * U * float(np.abs(x).max()))


def test_upsampling_between_the_modes(kernel: Kernel, within: Within) -> None:
    x = np.array([[[0.0, 1.0]]], np.float32)
    given = {"x": x, "scale_factor_width": 3, "half_pixel_centers": False}
    (found,) = kernel("upsample_bilinear", ["FLOAT32"], align_corners=False, **given)
    within(found, [[DOCUMENTED["DEFAULT", 6]]], 4)
    with pytest.raises(UnsupportedError, match="aligned corners and half-pixel centres"):
        kernel("upsample_bilinear", ["FLOAT32"], **given | {"half_pixel_centers": True})


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("size", [1, 2, 3, 7, 10])
@pytest.mark.parametrize("wanted", [1, 2, 3, 5, 7, 19, 30])
def test_the_nearest_neighbour(size: int, wanted: int, dtype: Any, kernel: Kernel) -> None:
    """Resizing looks from the middle of a pixel, upsampling from its start.

    So coremltools' TensorFlow frontend uses them, for half_pixel_centers and without; and so its
    tests expect of Core ML that ``resize`` takes [a, b] to [a, b, b].
    """
    x = np.arange(2 * size, dtype=dtype).reshape(1, 2, size)
    declared = [np.dtype(dtype).name.upper()]
    middle = [math.floor(Fraction(2 * i + 1, 2) * size / wanted) for i in range(wanted)]
    (found,) = kernel(
        "resize_nearest_neighbor", declared, x=x, target_size_height=2, target_size_width=wanted
    )
    np.testing.assert_array_equal(found.numpy(), x[:, :, middle])
    (found,) = kernel(
        "resize", declared, x=x, shape=[wanted], resized_dims=np.uint32(1),
        interpolation_mode="NEAREST_NEIGHBOR",
    )  # fmt: skip
    np.testing.assert_array_equal(found.numpy(), x[:, :, middle])
    if wanted % size == 0:
        (found,) = kernel(
            "upsample_nearest_neighbor", declared, x=x, scale_factor_width=wanted // size
        )
        np.testing.assert_array_equal(found.numpy(), x.repeat(wanted // size, 2))


def test_upsampling_by_a_fraction_is_torchs(kernel: Kernel) -> None:
    x = np.arange(6, dtype=np.float32).reshape(1, 1, 2, 3)
    for height, width in ((3.17, 0.67), (2.0, 1.12), (1.5, 2.5)):
        (found,) = kernel(
            "upsample_nearest_neighbor", ["FLOAT32"], x=x, scale_factor_height=np.float32(height),
            scale_factor_width=np.float32(width),
        )  # fmt: skip
        sizes = [math.floor(2 * height), math.floor(3 * width)]
        assert torch.equal(found, functional.interpolate(torch.from_numpy(x), sizes))


def test_sizes_of_zero_are_kept(kernel: Kernel) -> None:
    """The second example in coremltools' documentation of ``resize``."""
    x = np.zeros((1, 2, 3, 9), np.float32)
    (found,) = kernel("resize", ["FLOAT32"], x=x, shape=[1, 0, 0], resized_dims=np.uint32(2))
    assert found.shape == x.shape
    with pytest.raises(UnsupportedError, match="nearest neighbour in sampling mode ALIGN_CORNERS"):
        kernel(
            "resize", ["FLOAT32"], x=x, shape=[3], resized_dims=np.uint32(1),
            interpolation_mode="NEAREST_NEIGHBOR", sampling_mode="ALIGN_CORNERS",
        )  # fmt: skip


@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize(
    "mode", ["normalized_minus_one_to_one", "normalized_zero_to_one", "unnormalized"]
)
def test_resampling_at_pixels(mode: str, corners: bool, kernel: Kernel) -> None:
    """A coordinate that names a pixel gives that pixel, whatever way it is written.

    Without aligned corners -1 and 1 are the edges of the outer pixels, not their middles; pixels
    by number are the same with and without.
    """
    x = np.arange(20, dtype=np.float32).reshape(1, 1, 4, 5)
    places = np.stack(np.meshgrid(np.arange(5.0), np.arange(4.0)), -1)[None]
    sizes = np.array([5.0, 4.0])
    if mode != "unnormalized":
        places = places / (sizes - 1) if corners else (places + 0.5) / sizes
        places = places if mode == "normalized_zero_to_one" else 2 * places - 1
    (found,) = kernel(
        "resample", ["FLOAT32"], x=x, coordinates=places.astype(np.float32), sampling_mode="bilinear",
        padding_mode="constant", padding_value=np.float32(0), coordinates_mode=mode,
        align_corners=corners,
    )  # fmt: skip
    np.testing.assert_allclose(found.numpy(), x, atol=1e-4)
