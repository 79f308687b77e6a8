"""Types and constants of a saved ML Program as torch's: MIL.proto's ``ValueType`` and ``Value``."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix.errors import InputError, UnsupportedError
from edgemix.targets.coreml.blobs import PACKED_BITS, Blob, BlobFile, unpacked

LARGEST = 2**33
"""Bytes that one tensor may have; a model that declares more is refused before it runs."""

_HELD: Mapping[str, torch.dtype] = {
    "BOOL": torch.bool, "FLOAT16": torch.float16, "FLOAT32": torch.float32,
    "FLOAT64": torch.float64, "BFLOAT16": torch.bfloat16, "FLOAT8E4M3FN": torch.float8_e4m3fn,
    "FLOAT8E5M2": torch.float8_e5m2, "INT8": torch.int8, "INT16": torch.int16,
    "INT32": torch.int32, "INT64": torch.int64, "INT4": torch.int8, "UINT8": torch.uint8,
    "UINT1": torch.uint8, "UINT2": torch.uint8, "UINT3": torch.uint8, "UINT4": torch.uint8,
    "UINT6": torch.uint8, "UINT16": torch.int32, "UINT32": torch.int64, "UINT64": torch.int64,
}  # fmt: skip
"""In what a value of each type is held: torch computes little with unsigned integers."""

_STORED: Mapping[str, Any] = {
    "BOOL": np.uint8, "FLOAT16": np.float16, "FLOAT32": np.float32, "FLOAT64": np.float64,
    "BFLOAT16": np.uint16, "FLOAT8E4M3FN": np.uint8, "FLOAT8E5M2": np.uint8, "INT8": np.int8,
    "INT16": np.int16, "INT32": np.int32, "INT64": np.int64, "UINT8": np.uint8,
    "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """The type of one value."""

    dtype: str
    """As MIL names it: ``FLOAT16``, ``STRING``; ``LIST``, ``DICTIONARY`` of what is no tensor."""
    shape: tuple[int | None, ...]
    """None: known only when the model runs."""
    state: bool = False
    variadic: bool = False
    """Not even the number of its axes is known before the model runs."""

    @property
    def held(self) -> torch.dtype | None:
        """The torch type that holds it; None of what is no tensor of numbers."""
        return _HELD.get(self.dtype)

    @property
    def floating(self) -> bool:
        """Whether it is a float."""
        return self.held is not None and self.held.is_floating_point

    def __str__(self) -> str:
        shape = ", ".join("?" if n is None else str(n) for n in self.shape)
        return f"{self.dtype.lower()}[{shape}]"


def kind(value_type: Any) -> Kind:
    """What a ``ValueType`` says.

    Raises:
        InputError: a tensor larger than :data:`LARGEST`.
    """
    which = value_type.WhichOneof("type")
    if which == "stateType":
        inner = kind(value_type.stateType.wrappedType)
        return Kind(inner.dtype, inner.shape, state=True)
    if which != "tensorType":
        return Kind({"listType": "LIST", "tupleType": "TUPLE"}.get(which, "DICTIONARY"), ())
    tensor = value_type.tensorType
    shape = tuple(
        d.constant.size if d.WhichOneof("dimension") == "constant" else None
        for d in tensor.dimensions
    )
    names = type(tensor).DESCRIPTOR.fields_by_name["dataType"].enum_type.values_by_number
    if tensor.dataType not in names:
        raise InputError(f"the model declares a tensor of type {tensor.dataType}, which is none")
    variadic = any(d.unknown.variadic for d in tensor.dimensions)
    found = Kind(names[tensor.dataType].name, shape, variadic=variadic)
    if 4 * math.prod(n or 1 for n in shape) > LARGEST:
        raise InputError(f"the model declares a tensor of type {found}, larger than 8 GiB")
    return found


def value(stored: Any, files: Callable[[str], BlobFile], where: str) -> Any:
    """A constant: a tensor, a string, or a tuple or dictionary of constants.

    Args:
        stored: the ``Value``.
        files: from a name in it to the weight file.
        where: the operation that it belongs to, for messages.

    Raises:
        InputError: its data do not fit its type.
    """
    if stored.WhichOneof("value") == "blobFileValue":
        place = stored.blobFileValue
        return _from_blob(files(place.fileName).read(place.offset), kind(stored.type), where)
    now = stored.immediateValue
    which = now.WhichOneof("value")
    if which == "tensor":
        return _immediate(now.tensor, kind(stored.type), where)
    if which in ("tuple", "list"):
        return tuple(value(v, files, where) for v in getattr(now, which).values)
    if which == "dictionary":
        pairs = now.dictionary.values
        return {value(p.key, files, where): value(p.value, files, where) for p in pairs}
    raise InputError(f"{where}: a constant has no value")


def _from_blob(blob: Blob, expected: Kind, where: str) -> Tensor:
    if blob.type != expected.dtype:
        raise InputError(f"{where} is {expected}, its weights are stored as {blob.type.lower()}")
    return tensor(blob.data, expected, where)


def tensor(data: npt.NDArray[np.uint8], expected: Kind, where: str) -> Tensor:
    """Bytes as a tensor of the expected type, without a copy where the type has whole bytes.

    Raises:
        InputError: there are too few or too many of them.
    """
    count = _count(expected, where)
    bits = PACKED_BITS.get(expected.dtype)
    size = math.ceil(count * bits / 8) if bits else count * np.dtype(_stored(expected)).itemsize
    if len(data) != size:
        raise InputError(f"{where} is {expected}: {size:,} bytes, but {len(data):,} are stored")
    if bits:
        flat: npt.NDArray[Any] = unpacked(data, bits, count)
        if expected.dtype == "INT4":
            flat = ((flat ^ 8).astype(np.int8) - 8).astype(np.int8)
    else:
        flat = data.view(_stored(expected))
    return _held(flat, expected)


def _held(flat: npt.NDArray[Any], expected: Kind) -> Tensor:
    shape = [n or 0 for n in expected.shape]
    if expected.dtype in ("UINT16", "UINT32", "UINT64"):
        flat = flat.astype(np.int32 if expected.dtype == "UINT16" else np.int64)
    found = torch.from_numpy(flat).reshape(shape)
    held = _HELD[expected.dtype]
    if expected.dtype in ("BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"):
        return found.view(held)
    return found.to(held)


def _immediate(stored: Any, expected: Kind, where: str) -> Any:
    field = stored.WhichOneof("value")
    if field is None and 0 in expected.shape:
        return torch.zeros([n or 0 for n in expected.shape], dtype=_dtype(expected))
    if field is None:
        raise InputError(f"{where}: a constant has no value")
    found = getattr(stored, field).values
    if (field == "strings") != (expected.dtype == "STRING"):
        raise InputError(f"{where} is {expected}, but {field} are stored")
    if expected.dtype == "STRING":
        texts = tuple(found)
        return texts[0] if not expected.shape and len(texts) == 1 else texts
    if field == "bytes":
        return tensor(np.frombuffer(bytearray(found), np.uint8), expected, where)
    count = _count(expected, where)
    if len(found) not in (count, 1):
        raise InputError(f"{where} is {expected}: {count} values, but {len(found)} are stored")
    flat = np.asarray(found)
    # One value may stand for all: coremltools' writers of older models did that.
    flat = np.broadcast_to(flat, (count,)).copy()
    return torch.from_numpy(flat).to(_dtype(expected)).reshape([n or 0 for n in expected.shape])


def _count(expected: Kind, where: str) -> int:
    if any(n is None for n in expected.shape):
        raise InputError(f"{where}: a constant of type {expected} has no fixed shape")
    return math.prod(n or 0 for n in expected.shape)


def _dtype(expected: Kind) -> torch.dtype:
    if expected.held is None:
        raise UnsupportedError(f"edgemix does not hold constants of type {expected.dtype}")
    return expected.held


def _stored(expected: Kind) -> Any:
    if expected.dtype not in _STORED:
        raise UnsupportedError(f"edgemix does not read constants of type {expected.dtype}")
    return _STORED[expected.dtype]
