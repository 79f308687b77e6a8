"""Quantized values and compressed weights.

MIL: ``quantization_ops``, ``constexpr_ops``, ``compression``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.errors import InputError
from edgemix.targets.coreml.blobs import unpacked
from edgemix.targets.coreml.kernels.base import Ints, along, axis_of, kernels

_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


def quantize(
    input: Tensor,
    scale: Tensor,
    output_dtype: str,
    zero_point: Tensor | None = None,
    axis: int | None = None,
) -> Tensor:
    """clip(round(input / scale) + zero point), ties to even."""
    steps = (input / _spread(scale, axis, input)).round()
    if zero_point is not None:
        steps = steps + _spread(zero_point, axis, input)
    return steps.clamp(*_RANGES[output_dtype])


def dequantize(
    input: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    """Scale · (input - zero point)."""
    steps = input.to(torch.float32)
    if zero_point is not None:
        steps = steps - _spread(zero_point, axis, input)
    return steps * _spread(scale, axis, input)


def constexpr_affine_dequantize(
    quantized_data: Tensor, zero_point: Tensor, scale: Tensor, axis: int
) -> Tensor:
    return dequantize(quantized_data, scale, zero_point, axis)


def constexpr_cast(source_val: Tensor, output_dtype: str) -> Tensor:
    return source_val


def constexpr_lut_to_dense(
    indices: Tensor, lut: Tensor, shape: Ints | None = None, vector_axis: int | None = None
) -> Tensor:
    """Places in a table of values (a palette) as these values.

    With ``shape`` (iOS 16): one table [n] for all, and places packed in bytes. Without (iOS 18):
    tables [*blocks, n, v] of vectors of v values that are filled in along ``vector_axis``.
    """
    if shape is not None:
        bits = (lut.numel() - 1).bit_length()
        count = torch.Size(shape).numel()
        places = torch.from_numpy(unpacked(indices.numpy(), bits, count))
        return lut[places.long()].reshape(list(shape))
    blocks, vector = lut.shape[:-2], lut.shape[-1]
    if lut.ndim != indices.ndim + 2:
        raise InputError(f"a table of shape {tuple(lut.shape)} for indices of {indices.ndim} axes")
    tables = torch.arange(blocks.numel()).reshape(blocks)
    chosen = blockwise(tables, indices.shape)
    found = lut.reshape(-1, *lut.shape[-2:])[chosen, indices.long()]
    if vector == 1:
        return found.squeeze(-1)
    axis = axis_of(vector_axis or 0, indices.ndim)
    return found.movedim(-1, axis + 1).flatten(axis, axis + 1)


def constexpr_sparse_to_dense(
    nonzero_data: Tensor, mask: Tensor, shape: Ints | None = None
) -> Tensor:
    """Values where a bit is set, zero elsewhere; with ``shape`` (iOS 16) the bits are packed."""
    if shape is not None:
        count = torch.Size(shape).numel()
        mask = torch.from_numpy(unpacked(mask.numpy(), 1, count)).reshape(list(shape))
    return _placed(nonzero_data, mask)


def constexpr_blockwise_shift_scale(
    data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> Tensor:
    """Scale · (data - offset), each of a block of ``data``."""
    steps = data.to(torch.float32)
    if offset is not None:
        steps = steps - blockwise(offset.to(torch.float32), data.shape)
    return steps * blockwise(scale, data.shape)


def constexpr_lut_to_sparse(
    indices_mask: Tensor,
    indices_nonzero_data: Tensor,
    lut: Tensor,
    vector_axis: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The mask and the values of what the table makes of the places that are set."""
    dense = constexpr_lut_to_dense(
        _placed(indices_nonzero_data, indices_mask), lut, vector_axis=vector_axis
    )
    mask = indices_mask
    if lut.shape[-1] > 1:
        mask = mask.repeat_interleave(lut.shape[-1], axis_of(vector_axis or 0, mask.ndim))
    return mask, dense[mask.bool()]


def constexpr_sparse_blockwise_shift_scale(
    data_mask: Tensor, nonzero_data: Tensor, scale: Tensor, offset: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The mask, and what :func:`constexpr_blockwise_shift_scale` makes of what is set."""
    dense = constexpr_blockwise_shift_scale(_placed(nonzero_data, data_mask), scale, offset)
    return data_mask, dense[data_mask.bool()]


def blockwise(parameters: Tensor, shape: torch.Size) -> Tensor:
    """One parameter a block [*blocks] as one an element [*shape].

    Raises:
        InputError: the blocks do not divide the shape.
    """
    for axis, (blocks, size) in enumerate(zip(parameters.shape, shape, strict=True)):
        if blocks == 0 or size % blocks:
            raise InputError(f"{blocks} blocks do not divide an axis of {size}")
        if blocks not in (1, size):
            parameters = parameters.repeat_interleave(size // blocks, axis)
    return parameters.expand(shape)


def _spread(parameter: Tensor, axis: int | None, x: Tensor) -> Tensor:
    wide = parameter.to(torch.float32)
    return wide if axis is None else along(wide, axis_of(axis, x.ndim), x.ndim)


def _placed(values: Tensor, mask: Tensor) -> Tensor:
    chosen = mask.bool()
    if int(chosen.sum()) != values.numel():
        raise InputError(f"{values.numel()} values for {int(chosen.sum())} places")
    dense = torch.zeros(mask.shape, dtype=values.dtype)
    dense[chosen] = values
    return dense


KERNELS = {
    **kernels(quantize, dequantize, constexpr_affine_dequantize, constexpr_blockwise_shift_scale,
              constexpr_sparse_blockwise_shift_scale),
    **kernels(constexpr_cast, constexpr_lut_to_dense, constexpr_sparse_to_dense,
              constexpr_lut_to_sparse, moves=True),
}  # fmt: skip
