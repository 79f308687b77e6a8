"""Resizing the last two axes. MIL: ``image_resizing``."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemix.errors import UnsupportedError
from edgemix.targets.coreml.kernels.base import Ints, kernels


def resize_bilinear(
    x: Tensor,
    target_size_height: int = 1,
    target_size_width: int = 1,
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    return _linear(x, [target_size_height, target_size_width], sampling_mode)


def upsample_bilinear(
    x: Tensor,
    scale_factor_height: float = 1,
    scale_factor_width: float = 1,
    align_corners: bool = True,
    half_pixel_centers: bool | None = None,
) -> Tensor:
    """Scales are recomputed from the sizes, which are rounded down."""
    centred = not align_corners if half_pixel_centers is None else half_pixel_centers
    if align_corners and centred:
        raise UnsupportedError("upsample_bilinear with aligned corners and half-pixel centres")
    mode = "STRICT_ALIGN_CORNERS" if align_corners else "DEFAULT"
    mode = "UNALIGN_CORNERS" if centred else mode
    return _linear(x, _scaled(x, scale_factor_height, scale_factor_width), mode)


def resize_nearest_neighbor(x: Tensor, target_size_height: int, target_size_width: int) -> Tensor:
    """Between centres of pixels: what coremltools writes for TensorFlow's half_pixel_centers."""
    return _nearest(x, [target_size_height, target_size_width], centred=True)


def upsample_nearest_neighbor(
    x: Tensor, scale_factor_height: float = 1, scale_factor_width: float = 1
) -> Tensor:
    return _nearest(x, _scaled(x, scale_factor_height, scale_factor_width), centred=False)


def resize(
    x: Tensor,
    shape: Ints,
    resized_dims: int,
    interpolation_mode: str = "LINEAR",
    sampling_mode: str = "DEFAULT",
) -> Tensor:
    """The last ``resized_dims`` of ``shape``; of these, 0 keeps what ``x`` has."""
    asked = list(shape)[len(shape) - resized_dims :]
    sizes = [n or x.shape[i - len(asked)] for i, n in enumerate(asked)]
    if interpolation_mode == "LINEAR":
        return _linear(x, sizes, sampling_mode)
    if sampling_mode != "DEFAULT":
        raise UnsupportedError(f"the nearest neighbour in sampling mode {sampling_mode}")
    return _nearest(x, sizes, centred=True)


def resample(
    x: Tensor,
    coordinates: Tensor,
    sampling_mode: str,
    padding_mode: str,
    padding_value: float,
    coordinates_mode: str,
    align_corners: bool,
) -> Tensor:
    """X [B, C, H, W] at coordinates [B, h, w, 2], which are (x, y)."""
    wanted = "reflection" if align_corners or coordinates_mode == "unnormalized" else "symmetric"
    if padding_mode in ("reflection", "symmetric") and padding_mode != wanted:
        raise UnsupportedError(f"resample with {padding_mode} and align_corners={align_corners}")
    grid = coordinates.to(x.dtype)
    if coordinates_mode == "unnormalized":
        sizes = torch.tensor([x.shape[-1], x.shape[-2]], dtype=x.dtype)
        grid = 2 * grid / (sizes - 1).clamp(min=1) - 1
    elif coordinates_mode == "normalized_zero_to_one":
        grid = 2 * grid - 1
    corners = align_corners or coordinates_mode == "unnormalized"
    mode = {"constant": "zeros", "border": "border"}.get(padding_mode, "reflection")
    found = torch.nn.functional.grid_sample(x, grid, sampling_mode, mode, corners)
    if padding_mode != "constant" or padding_value == 0:
        return found
    ones = torch.ones_like(x[:, :1])
    inside = torch.nn.functional.grid_sample(ones, grid, sampling_mode, mode, corners)
    return found + padding_value * (1 - inside)


def _scaled(x: Tensor, height: float, width: float) -> list[int]:
    return [math.floor(x.shape[-2] * height), math.floor(x.shape[-1] * width)]


def _points(size: int, wanted: int, mode: str) -> Tensor:
    """Where along an axis of ``size`` the ``wanted`` samples are taken, in float64."""
    i = torch.arange(wanted, dtype=torch.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        if wanted == 1:
            return torch.tensor([(size - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0]).double()
        points = i * ((size - 1) / (wanted - 1))
    elif mode == "DEFAULT":
        points = i * (size / wanted)
    elif mode == "OFFSET_CORNERS":
        step = max(1, size - 1) / wanted
        points = (i + 0.5) * step
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * (size / wanted) - 0.5
    else:
        raise UnsupportedError(f"the sampling mode {mode}")
    return points.clamp(0, size - 1)


def _linear(x: Tensor, sizes: Ints, mode: str) -> Tensor:
    for axis, wanted in enumerate(sizes, x.ndim - len(sizes)):
        size = x.shape[axis]
        points = _points(size, wanted, mode)
        low = points.floor().to(torch.int64)
        high = (low + 1).clamp(max=size - 1)
        weight = (points - low).to(x.dtype).reshape([-1] + [1] * (x.ndim - axis - 1))
        below, above = x.index_select(axis, low), x.index_select(axis, high)
        x = below + (above - below) * weight
    return x


def _nearest(x: Tensor, sizes: Ints, centred: bool) -> Tensor:
    for axis, wanted in enumerate(sizes, x.ndim - len(sizes)):
        # In whole numbers: a product of floats may end just below an integer.
        places = (2 * torch.arange(wanted) + int(centred)) * x.shape[axis] // (2 * wanted)
        x = x.index_select(axis, places)
    return x


KERNELS = kernels(
    resize_bilinear, upsample_bilinear, resize_nearest_neighbor, upsample_nearest_neighbor,
    resize, resample,
)  # fmt: skip
