"""Packed buses as bytes: value i of a sample takes bits [i · width, (i + 1) · width)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgemix.encoding import FixedPoint

Bytes = npt.NDArray[np.uint8]


def pack(integers: npt.NDArray[np.int64], width: int) -> Bytes:
    """Integers [n, count] → bytes [n, ceil(count · width / 8)], least significant first."""
    return pack_bus([(integers, width)])


def pack_bus(parts: Sequence[tuple[npt.NDArray[np.int64], int]]) -> Bytes:
    """Several tensors [n, count] of different widths on one bus, the first in the lowest bits."""
    bits = [
        ((integers[:, :, None] >> np.arange(width)) & 1).reshape(
            len(integers), integers.shape[1] * width
        )
        for integers, width in parts
    ]
    joined = np.concatenate(bits, axis=1).astype(np.uint8)
    packed: Bytes = np.packbits(joined, axis=1, bitorder="little")
    return packed


def unpack_bus(
    data: Bytes, parts: Sequence[tuple[int, FixedPoint]]
) -> list[npt.NDArray[np.float64]]:
    """The tensors [n, count] that :func:`pack_bus` packed, from their counts and types."""
    total = sum(count * fixed.width for count, fixed in parts)
    bits = np.unpackbits(data, axis=1, bitorder="little", count=total)
    found, start = [], 0
    for count, fixed in parts:
        end = start + count * fixed.width
        found.append(_values(bits[:, start:end], count, fixed))
        start = end
    return found


def unpack(data: Bytes, count: int, fixed: FixedPoint) -> npt.NDArray[np.float64]:
    """Bytes [n, …] → the real values [n, count] of a type."""
    return unpack_bus(data, [(count, fixed)])[0]


def _values(bits: Bytes, count: int, fixed: FixedPoint) -> npt.NDArray[np.float64]:
    weights = 1 << np.arange(fixed.width, dtype=np.int64)
    if fixed.signed:
        weights[-1] = -weights[-1]
    integers = bits.reshape(len(bits), count, fixed.width).astype(np.int64) @ weights
    values: npt.NDArray[np.float64] = integers * 2.0**-fixed.fraction
    return values
