"""Packed buses as bytes: value i of a sample takes bits [i · width, (i + 1) · width)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgemix.encoding import FixedPoint

Bytes = npt.NDArray[np.uint8]


def pack(integers: npt.NDArray[np.int64], width: int) -> Bytes:
    """Integers [n, count] → bytes [n, ceil(count · width / 8)], least significant first."""
    shifts = np.arange(width)
    bits = (integers[:, :, None] >> shifts) & 1
    packed: Bytes = np.packbits(
        bits.reshape(len(integers), bits.shape[1] * width).astype(np.uint8),
        axis=1,
        bitorder="little",
    )
    return packed


def unpack(data: Bytes, count: int, fixed: FixedPoint) -> npt.NDArray[np.float64]:
    """Bytes [n, …] → the real values [n, count] of a type."""
    bits = np.unpackbits(data, axis=1, bitorder="little", count=count * fixed.width)
    weights = 1 << np.arange(fixed.width, dtype=np.int64)
    if fixed.signed:
        weights[-1] = -weights[-1]
    integers = bits.reshape(len(data), count, fixed.width).astype(np.int64) @ weights
    values: npt.NDArray[np.float64] = integers * 2.0**-fixed.fraction
    return values
