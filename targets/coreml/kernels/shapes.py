"""Where values lie: reshape, slice, join, pad, make.

MIL: ``tensor_transformation``, ``tensor_operation``.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgemix.targets.coreml.kernels.base import Bools, Ints, Tensors, axis_of, kernels


def reshape(x: Tensor, shape: Ints) -> Tensor:
    """-1 is what is left over; 0 is the axis of ``x`` counted from the end, or 1 beyond it."""
    sizes = list(shape)
    for i, size in enumerate(sizes):
        if size == 0:
            from_end = len(sizes) - i
            sizes[i] = x.shape[-from_end] if from_end <= x.ndim else 1
    return x.reshape(sizes)


def reshape_like(
    x: Tensor, ref_tensors: Tensors, begins: Ints, ends: Ints, end_masks: Bools
) -> Tensor:
    """The shape is put together of pieces of the others' shapes."""
    sizes: list[int] = []
    for other, begin, end, to_end in zip(ref_tensors, begins, ends, end_masks, strict=True):
        sizes += other.shape[begin:] if to_end else other.shape[begin:end]
    return x.reshape(sizes)


def expand_dims(x: Tensor, axes: Ints) -> Tensor:
    rank = x.ndim + len(axes)
    for axis in sorted(axis_of(a, rank) for a in axes):
        x = x.unsqueeze(axis)
    return x


def squeeze(x: Tensor, axes: Ints | None = None) -> Tensor:
    """Axes longer than one stay, as in torch."""
    return x.squeeze() if axes is None else x.squeeze(list(axes))


def transpose(x: Tensor, perm: Ints) -> Tensor:
    return x.permute(list(perm))


def flatten2d(x: Tensor, axis: int = 1) -> Tensor:
    return x.reshape(x.shape[:axis].numel(), -1)


def shape(x: Tensor) -> Tensor:
    return torch.tensor(x.shape, dtype=torch.int32)


def slice_by_index(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """Numpy's ``x[begin:end:stride]`` on every axis."""
    chosen = _chosen(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    for axis, places in enumerate(chosen):
        x = _take(x, axis, places)
    dropped = [i for i, drop in enumerate(squeeze_mask or ()) if drop]
    return x.squeeze(dropped) if dropped else x


def slice_update(
    x: Tensor,
    update: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None = None,
    begin_mask: Bools | None = None,
    end_mask: Bools | None = None,
    squeeze_mask: Bools | None = None,
) -> Tensor:
    """``x`` with the slice that :func:`slice_by_index` would take replaced."""
    chosen = _chosen(x, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    found = x.clone()
    news, places = update.reshape([len(p) for p in chosen]), []
    for axis, part in enumerate(chosen):
        if part.step < 0:  # torch has no such slices
            part, news = part[::-1], news.flip(axis)
        places.append(slice(part.start, part.stop, part.step))
    found[tuple(places)] = news
    return found


def slice_by_size(x: Tensor, begin: Ints, size: Ints) -> Tensor:
    """``size`` elements from ``begin``; -1: all to the end."""
    for axis, (first, count) in enumerate(zip(begin, size, strict=True)):
        start = axis_of(first, x.shape[axis])
        x = x.narrow(axis, start, x.shape[axis] - start if count == -1 else count)
    return x


def _chosen(
    x: Tensor,
    begin: Ints,
    end: Ints,
    stride: Ints | None,
    begin_mask: Bools | None,
    end_mask: Bools | None,
    squeeze_mask: Bools | None,
) -> list[range]:
    no = [False] * x.ndim
    chosen = []
    for axis, size in enumerate(x.shape):
        step = 1 if stride is None else stride[axis]
        first = None if (begin_mask or no)[axis] else begin[axis]
        last = None if (end_mask or no)[axis] else end[axis]
        if (squeeze_mask or no)[axis]:
            place = axis_of(first or 0, size)
            chosen.append(range(place, place + 1))
        else:
            chosen.append(range(size)[first:last:step])
    return chosen


def _take(x: Tensor, axis: int, places: range) -> Tensor:
    if places == range(x.shape[axis]):
        return x
    if places.step == 1:
        return x.narrow(axis, places.start, len(places))
    if places.step > 1:
        index = [slice(None)] * axis + [slice(places.start, places.stop, places.step)]
        return x[tuple(index)]
    return x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))


def reverse(x: Tensor, axes: Ints | None = None) -> Tensor:
    return x.flip(list(range(x.ndim)) if axes is None else list(axes))


def reverse_sequence(x: Tensor, lengths: Tensor, seq_axis: int = 0, batch_axis: int = 0) -> Tensor:
    """The first ``lengths[i]`` elements of sample i turned around."""
    moved = x.movedim((batch_axis, seq_axis), (0, 1))
    place = torch.arange(moved.shape[1]).expand(moved.shape[:2])
    last = lengths.to(torch.int64)[:, None]
    turned = torch.where(place < last, last - 1 - place, place)
    found = moved[torch.arange(moved.shape[0])[:, None], turned]
    return found.movedim((0, 1), (batch_axis, seq_axis))


def concat(values: Tensors, axis: int, interleave: bool = False) -> Tensor:
    if interleave:
        place = axis_of(axis, values[0].ndim)
        return torch.stack(list(values), place + 1).flatten(place, place + 1)
    if values[0].ndim == 0:
        return torch.stack(list(values), axis)
    return torch.cat(list(values), axis)


def stack(values: Tensors, axis: int) -> Tensor:
    return torch.stack(list(values), axis)


def split(
    x: Tensor, axis: int, num_splits: int | None = None, split_sizes: Ints | None = None
) -> tuple[Tensor, ...]:
    if split_sizes is not None:
        return torch.split(x, list(split_sizes), axis)
    return torch.split(x, x.shape[axis] // (num_splits or 1), axis)


def tile(x: Tensor, reps: Ints) -> Tensor:
    return x.repeat(list(reps))


def pad(x: Tensor, pad: Ints, mode: str = "constant", constant_val: float = 0.0) -> Tensor:
    """Before and after each of the last axes, in their order."""
    axes = len(pad) // 2
    if mode == "constant":
        flat = [p for i in reversed(range(axes)) for p in (pad[2 * i], pad[2 * i + 1])]
        return torch.nn.functional.pad(x, flat, value=constant_val)
    for i in range(axes):
        axis = x.ndim - axes + i
        size = x.shape[axis]
        places = torch.arange(-pad[2 * i], size + pad[2 * i + 1])
        if mode == "reflect":
            places = places.abs()
            places = torch.where(places >= size, 2 * (size - 1) - places, places)
        x = x.index_select(axis, places.clamp(0, size - 1))
    return x


def crop(x: Tensor, crop_height: Ints, crop_width: Ints) -> Tensor:
    """Rows and columns cut off at both ends."""
    rows, columns = x.shape[-2:]
    rows_kept = x[..., crop_height[0] : rows - crop_height[1], :]
    return rows_kept[..., crop_width[0] : columns - crop_width[1]]


def fill(shape: Ints, value: Tensor | None = None) -> Tensor:
    return _filled(shape, value)


def fill_like(ref_tensor: Tensor, value: Tensor | None = None) -> Tensor:
    return _filled(ref_tensor.shape, value)


def _filled(shape: Ints, value: Tensor | None) -> Tensor:
    made = torch.tensor(0.0) if value is None else value.reshape(())
    return made.expand(list(shape)).clone()


def range_1d(start: Tensor, end: Tensor, step: Tensor) -> Tensor:
    """As many as (end - start) / step rounds up to, in their own type: so shapes are declared."""
    if not start.is_floating_point():
        return torch.arange(start.item(), end.item(), step.item(), dtype=start.dtype)
    count = math.ceil(((end - start) / step).item())
    return (start.double() + torch.arange(count) * step.double()).to(start.dtype)


def one_hot(
    indices: Tensor,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Tensor | None = None,
    off_value: Tensor | None = None,
) -> Tensor:
    """A new axis, hot at the place that the index names."""
    places = torch.arange(one_hot_vector_size)
    hot = indices.unsqueeze(-1) == places
    on = torch.tensor(1) if on_value is None else on_value
    off = torch.tensor(0) if off_value is None else off_value
    return torch.where(hot, on, off).movedim(-1, axis)


def non_zero(x: Tensor) -> Tensor:
    return torch.nonzero(x)


def band_part(x: Tensor, lower: int = -1, upper: int = -1) -> Tensor:
    """The diagonals from ``lower`` below to ``upper`` above the main one; below zero: all."""
    kept = x if upper < 0 else x.tril(upper)
    return kept if lower < 0 else kept.triu(-lower)


def depth_to_space(x: Tensor, block_size: int) -> Tensor:
    """X [n, C, H, W]; the block's place is the slower index of the channel."""
    n, c, h, w = x.shape
    b = block_size
    blocks = x.reshape(n, b, b, c // (b * b), h, w)
    return blocks.permute(0, 3, 4, 1, 5, 2).reshape(n, c // (b * b), h * b, w * b)


def space_to_depth(x: Tensor, block_size: int) -> Tensor:
    """The inverse of :func:`depth_to_space`."""
    n, c, h, w = x.shape
    b = block_size
    blocks = x.reshape(n, c, h // b, b, w // b, b)
    return blocks.permute(0, 3, 5, 1, 2, 4).reshape(n, c * b * b, h // b, w // b)


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    return torch.nn.functional.pixel_shuffle(x, upscale_factor)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    return torch.nn.functional.pixel_unshuffle(x, downscale_factor)


def space_to_batch(x: Tensor, block_shape: Ints, paddings: Tensor) -> Tensor:
    """X [n, C, H, W]; the block's place is the slower index of the batch."""
    (top, bottom), (left, right) = paddings.tolist()
    wide = torch.nn.functional.pad(x, [left, right, top, bottom])
    n, c, h, w = wide.shape
    bh, bw = block_shape
    blocks = wide.reshape(n, c, h // bh, bh, w // bw, bw)
    return blocks.permute(3, 5, 0, 1, 2, 4).reshape(n * bh * bw, c, h // bh, w // bw)


def batch_to_space(x: Tensor, block_shape: Ints, crops: Tensor) -> Tensor:
    """The inverse of :func:`space_to_batch`."""
    (top, bottom), (left, right) = crops.tolist()
    bh, bw = block_shape
    n, c, h, w = x.shape
    blocks = x.reshape(bh, bw, n // (bh * bw), c, h, w)
    wide = blocks.permute(2, 3, 4, 0, 5, 1).reshape(n // (bh * bw), c, h * bh, w * bw)
    return wide[:, :, top : h * bh - bottom, left : w * bw - right]


def sliding_windows(x: Tensor, axis: int, size: int, stride: int = 1) -> Tensor:
    """All windows along an axis, their elements on a new axis behind it."""
    place = axis_of(axis, x.ndim)
    return x.unfold(place, size, stride).movedim(-1, place + 1)


KERNELS = kernels(
    reshape, reshape_like, expand_dims, squeeze, transpose, flatten2d, shape, slice_by_index,
    slice_update, slice_by_size, reverse, reverse_sequence, concat, stack, split, tile, pad, crop,
    fill, fill_like, range_1d, one_hot, non_zero, band_part, depth_to_space, space_to_depth,
    pixel_shuffle, pixel_unshuffle, space_to_batch, batch_to_space, sliding_windows, moves=True,
)  # fmt: skip
