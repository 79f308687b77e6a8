"""Core ML's weight files ("blob storage", version 2), mapped into memory and not read until used.

A header of 64 bytes, then records of 64 bytes that a program names by their offset; each says where
its data lies. Layout: coremltools, ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp``. Integers of
fewer than eight bits are packed with the lowest bits first, across the borders of bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from edgemix.errors import InputError

_HEADER = struct.Struct("<II")
_RECORD = struct.Struct("<IIQQQ")
_SIZE = 64
_VERSION = 2
_SENTINEL = 0xDEADBEEF

BLOB_TYPES = {
    1: "FLOAT16", 2: "FLOAT32", 3: "UINT8", 4: "INT8", 5: "BFLOAT16", 6: "INT16", 7: "UINT16",
    8: "INT4", 9: "UINT1", 10: "UINT2", 11: "UINT4", 12: "UINT3", 13: "UINT6", 14: "INT32",
    15: "UINT32", 16: "FLOAT8E4M3FN", 17: "FLOAT8E5M2",
}  # fmt: skip


@dataclass(frozen=True)
class Blob:
    """One record's data."""

    type: str
    """As MIL names it: ``FLOAT16``."""
    data: npt.NDArray[np.uint8]
    unused_bits: int
    """At the end of the data, of types that do not fill whole bytes."""


class BlobFile:
    """A weight file. Nothing that a record says is trusted before it is checked."""

    def __init__(self, path: Path) -> None:
        """Map it.

        Raises:
            InputError: it is no weight file of version 2.
        """
        self._path = path
        size = path.stat().st_size
        if size < _SIZE:
            raise InputError(f"the weight file {path.name} has {size} bytes, fewer than its header")
        # Copied on write: tensors over it may be written to without a change of the file.
        self._bytes = np.memmap(path, np.uint8, mode="c")
        self.count, version = _HEADER.unpack(self._bytes[: _HEADER.size].tobytes())
        if version != _VERSION:
            raise InputError(
                f"the weight file {path.name} has version {version}, edgemix reads {_VERSION}"
            )

    def read(self, offset: int) -> Blob:
        """The data of the record at ``offset``, still in the file.

        Raises:
            InputError: there is no record, or its data lie beyond the file's end.
        """
        where = f"the record at byte {offset} of {self._path.name}"
        if offset < _SIZE or offset % _SIZE or offset + _SIZE > len(self._bytes):
            raise InputError(f"{where} lies outside the file's {len(self._bytes)} bytes")
        record = self._bytes[offset : offset + _RECORD.size].tobytes()
        sentinel, kind, size, start, padding = _RECORD.unpack(record)
        if sentinel != _SENTINEL:
            raise InputError(f"{where} is none: it does not begin with {_SENTINEL:#x}")
        if kind not in BLOB_TYPES:
            raise InputError(f"{where} has type {kind}, which edgemix does not know")
        if start + size > len(self._bytes):
            raise InputError(
                f"{where} names bytes {start} to {start + size}, the file has {len(self._bytes)}",
                do="the file is cut off, or the package was changed: save it again",
            )
        name = BLOB_TYPES[kind]
        # Before iOS 18 the field was left as it was in memory, so only types that need it read it.
        unused = padding if name in PACKED_BITS else 0
        return Blob(name, self._bytes[start : start + size], unused)


PACKED_BITS = {"INT4": 4, "UINT1": 1, "UINT2": 2, "UINT3": 3, "UINT4": 4, "UINT6": 6}


def unpacked(data: npt.NDArray[np.uint8], bits: int, count: int) -> npt.NDArray[np.uint8]:
    """``count`` unsigned integers of ``bits`` bits each, lowest bits first, one to a byte.

    Args:
        data: bytes, at least ceil(count · bits / 8) of them.
        bits: 1 to 8.
        count: how many integers.
    """
    if bits == 8:
        return data[:count]
    if 8 % bits == 0:
        shifts = np.arange(0, 8, bits, dtype=np.uint8)
        parts: npt.NDArray[np.uint8] = (data[:, None] >> shifts) & np.uint8(2**bits - 1)
        return parts.reshape(-1)[:count]
    places = np.unpackbits(data, bitorder="little")[: count * bits].reshape(count, bits)
    found: npt.NDArray[np.uint8] = (places << np.arange(bits, dtype=np.uint8)).sum(1, np.uint8)
    return found
