"""Reading and writing at places that a tensor names. MIL: ``scatter_gather``.

Negative places count from the end, as in iOS 15 and 16; from iOS 17 on they are undefined.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemix.errors import InputError
from edgemix.targets.coreml.kernels.base import axis_of, kernels


def gather(
    x: Tensor, indices: Tensor, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """Slices of ``x`` along ``axis``, one for every index."""
    place = axis_of(axis, x.ndim)
    positions = _inside(indices, x.shape[place])
    if not batch_dims:
        flat = x.index_select(place, positions.reshape(-1))
        return flat.reshape([*x.shape[:place], *indices.shape, *x.shape[place + 1 :]])
    lead = x.shape[:batch_dims]
    rows = x.reshape(math.prod(lead), *x.shape[batch_dims:])
    each = positions.reshape(math.prod(lead), *indices.shape[batch_dims:])
    found = [gather(row, p, place - batch_dims) for row, p in zip(rows, each, strict=True)]
    return torch.stack(found).reshape(*lead, *found[0].shape)


def gather_along_axis(
    x: Tensor, indices: Tensor, axis: int = 0, validate_indices: bool = False
) -> Tensor:
    place = axis_of(axis, x.ndim)
    return torch.take_along_dim(x, _inside(indices, x.shape[place]), place)


def gather_nd(
    x: Tensor, indices: Tensor, batch_dims: int = 0, validate_indices: bool = False
) -> Tensor:
    """``indices`` [..., k] names the first k axes of ``x``, after the batch's."""
    if batch_dims:
        each = [gather_nd(a, b, batch_dims - 1) for a, b in zip(x, indices, strict=True)]
        return torch.stack(each)
    return x[_places(x, indices)]


def scatter(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Slices along ``axis`` changed, ``indices`` [c] names which."""
    place = axis_of(axis, data.ndim)
    spread = [1] * data.ndim
    spread[place] = -1
    wide = indices.reshape(spread).expand(updates.shape)
    return scatter_along_axis(data, wide, updates, place, mode)


def scatter_along_axis(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    axis: int = 0,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """Element by element: each update goes to its index along ``axis``."""
    place = axis_of(axis, data.ndim)
    positions = _inside(indices, data.shape[place])
    grid = list(torch.meshgrid(*(torch.arange(n) for n in indices.shape), indexing="ij"))
    grid[place] = positions
    return _written(data, tuple(grid), updates, mode)


def scatter_nd(
    data: Tensor,
    indices: Tensor,
    updates: Tensor,
    mode: str = "add",
    validate_indices: bool = False,
) -> Tensor:
    """``indices`` [..., k] names the first k axes of ``data``."""
    return _written(data, _places(data, indices), updates, mode)


def _places(x: Tensor, indices: Tensor) -> tuple[Tensor, ...]:
    parts = indices.unbind(-1)
    return tuple(_inside(part, size) for part, size in zip(parts, x.shape, strict=False))


def _inside(indices: Tensor, size: int) -> Tensor:
    """Places from the front; outside of memory nothing is read, whatever a model says."""
    found = indices.to(torch.int64)
    found = torch.where(found < 0, found + size, found)
    if found.numel() and not bool(((found >= 0) & (found < size)).all()):
        raise InputError(f"an index lies outside an axis of {size}")
    return found


def _written(data: Tensor, places: tuple[Tensor, ...], updates: Tensor, mode: str) -> Tensor:
    """``data`` after the updates, several of which may meet in one place."""
    numbers = torch.arange(data.numel()).reshape(data.shape)[places].reshape(-1)
    flat, news = data.reshape(-1), updates.reshape(-1).to(data.dtype)
    if mode == "update":
        return flat.scatter(0, numbers, news).reshape(data.shape)
    if mode in ("add", "sub"):
        signed = news if mode == "add" else -news
        return flat.scatter_add(0, numbers, signed).reshape(data.shape)
    if mode in ("mul", "div"):
        ones = torch.ones_like(flat)
        factor = ones.scatter_reduce(0, numbers, news, "prod")
        return (flat * factor if mode == "mul" else flat / factor).reshape(data.shape)
    if mode in ("max", "min"):
        return flat.scatter_reduce(0, numbers, news, f"a{mode}").reshape(data.shape)
    raise InputError(f"MIL has no way to scatter that is called {mode!r}")


KERNELS = {
    **kernels(gather, gather_along_axis, gather_nd, moves=True),
    **kernels(scatter, scatter_along_axis, scatter_nd),
}
