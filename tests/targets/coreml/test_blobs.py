"""Weight files that coremltools' own writer wrote, and damaged ones."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from coremltools.libmilstoragepython import _BlobStorageWriter

from edgemix.errors import InputError, UnsupportedError
from edgemix.targets.coreml.blobs import BLOB_TYPES, PACKED_BITS, BlobFile, unpacked
from edgemix.targets.coreml.values import Kind, tensor

FULL = {
    "FLOAT32": ("float", np.float32), "FLOAT16": ("fp16", np.float16), "INT8": ("int8", np.int8),
    "UINT8": ("uint8", np.uint8), "INT16": ("int16", np.int16), "UINT16": ("uint16", np.uint16),
    "INT32": ("int32", np.int32), "UINT32": ("uint32", np.uint32),
}  # fmt: skip
SHAPE = (3, 7)
"""Of no type are 21 elements whole words; of packed ones not even whole bytes."""


def numbers(name: str) -> np.ndarray:
    generator = np.random.default_rng(0)
    if name.startswith("FLOAT"):
        found = generator.normal(0, 9, SHAPE).astype(FULL[name][1])
        found.ravel()[:3] = [np.inf, -0.0, np.finfo(FULL[name][1]).tiny]
        return found
    signed, bits = name.startswith("INT"), int(name.removeprefix("U").removeprefix("INT"))
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    whole = FULL[name][1] if name in FULL else np.int8 if signed else np.uint8
    found = generator.integers(low, high, SHAPE).astype(whole)
    found.ravel()[:2] = [low, high - 1]
    return found


def write(path: Path, *records: tuple[str, np.ndarray]) -> list[int]:
    """Where in the file each record begins."""
    writer, offsets = _BlobStorageWriter(str(path)), []
    for name, values in records:
        method = FULL[name][0] if name in FULL else name.lower()
        flat = np.ascontiguousarray(values.ravel())
        if name == "FLOAT16":
            flat = flat.view(np.uint16)
        offsets.append(getattr(writer, f"write_{method}_data")(flat))
    return offsets


@pytest.mark.parametrize("name", [*FULL, *PACKED_BITS])
def test_every_type_that_coremltools_writes(name: str, tmp_path: Path) -> None:
    path, values = tmp_path / "weight.bin", numbers(name)
    _, offset, _ = write(path, ("INT8", np.zeros(5, np.int8)), (name, values), (name, values))
    file = BlobFile(path)
    blob = file.read(offset)
    assert blob.type == name and file.count == 3
    bits = PACKED_BITS.get(name)
    assert blob.unused_bits == (-values.size * bits % 8 if bits else 0)
    found = tensor(blob.data, Kind(name, SHAPE), "a weight")
    assert found.shape == SHAPE
    np.testing.assert_array_equal(found.numpy(), values)


def test_types_that_only_a_header_names() -> None:
    """No writer of coremltools gives these; their bits are those of torch's types."""
    assert set(BLOB_TYPES.values()) == {
        *FULL, *PACKED_BITS, "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2",
    }  # fmt: skip
    numbers = torch.tensor([1.5, -0.25, 448.0])
    for name, dtype in (
        ("BFLOAT16", torch.bfloat16),
        ("FLOAT8E4M3FN", torch.float8_e4m3fn),
        ("FLOAT8E5M2", torch.float8_e5m2),
    ):
        stored = numbers.to(dtype)
        data = stored.view(torch.uint8).numpy().copy()
        found = tensor(data, Kind(name, (3,)), "a weight")
        assert found.dtype == dtype and torch.equal(found.float(), stored.float())


@pytest.mark.parametrize("bits", range(1, 9))
def test_packed_integers_against_a_loop_over_bits(bits: int) -> None:
    values = np.random.default_rng(bits).integers(0, 2**bits, 37)
    stream = [int(v) >> i & 1 for v in values for i in range(bits)]
    stream += [0] * (-len(stream) % 8)
    data = np.array(
        [sum(b << i for i, b in enumerate(stream[k : k + 8])) for k in range(0, len(stream), 8)],
        np.uint8,
    )
    np.testing.assert_array_equal(unpacked(data, bits, 37), values)


def test_a_tensor_may_be_written_to_but_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    (offset,) = write(path, ("INT8", np.arange(4, dtype=np.int8)))
    before = path.read_bytes()
    found = tensor(BlobFile(path).read(offset).data, Kind("INT8", (4,)), "a weight")
    found += 1
    assert found.tolist() == [1, 2, 3, 4] and path.read_bytes() == before


def damaged(change: Callable[[bytearray], Any]) -> Callable[[Path], tuple[Path, int]]:
    def make(folder: Path) -> tuple[Path, int]:
        path = folder / "weight.bin"
        (offset,) = write(path, ("FLOAT32", np.arange(8, dtype=np.float32)))
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
        return path, offset

    return make


def put(form: str, place: int, value: int) -> Callable[[bytearray], Any]:
    return lambda data: struct.pack_into(form, data, place, value)


RECORD = 64

DAMAGE: dict[str, tuple[Callable[[bytearray], Any], str]] = {
    "empty": (lambda d: d.clear(), "weight.bin has 0 bytes, fewer than its header"),
    "header cut off": (lambda d: d.__delitem__(slice(63, None)), "63 bytes, fewer than its header"),
    "version 1": (put("<I", 4, 1), "version 1, edgemix reads 2"),
    "version 2**31": (put("<I", 4, 2**31), "version 2147483648, edgemix reads 2"),
    "record cut off": (
        lambda d: d.__delitem__(slice(100, None)),
        "the record at byte 64 of weight.bin lies outside the file's 100 bytes",
    ),
    "no sentinel": (put("<I", RECORD, 0), "is none: it does not begin with 0xdeadbeef"),
    "unknown type": (put("<I", RECORD + 4, 99), "has type 99, which edgemix does not know"),
    "data cut off": (lambda d: d.__delitem__(slice(-1, None)), "names bytes 128 to 160, the file has 159"),
    "size beyond the end": (put("<Q", RECORD + 8, 33), "names bytes 128 to 161, the file has 160"),
    "size of 2**64 - 1": (put("<Q", RECORD + 8, 2**64 - 1), "the file is cut off"),
    "start beyond the end": (put("<Q", RECORD + 16, 2**63), "the file is cut off"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_files(case: str, tmp_path: Path) -> None:
    change, message = DAMAGE[case]
    path, offset = damaged(change)(tmp_path)
    with pytest.raises(InputError, match="weight.bin") as caught:
        BlobFile(path).read(offset)
    assert message in caught.value.message


@pytest.mark.parametrize("offset", [0, 1, 65, 128, 192, 2**40, -64])
def test_records_that_are_not_there(offset: int, tmp_path: Path) -> None:
    path = tmp_path / "weight.bin"
    write(path, ("FLOAT32", np.zeros(8, np.float32)))
    with pytest.raises(InputError, match=f"the record at byte {offset} of weight.bin"):
        BlobFile(path).read(offset)


def test_data_that_do_not_fit_their_type() -> None:
    data = np.zeros(6, np.uint8)
    for kind, message in (
        (Kind("FLOAT32", (2,)), "a weight is float32[2]: 8 bytes, but 6 are stored"),
        (Kind("FLOAT16", (2,)), "a weight is float16[2]: 4 bytes, but 6 are stored"),
        (Kind("UINT3", (3, 6)), "a weight is uint3[3, 6]: 7 bytes, but 6 are stored"),
        (Kind("FLOAT32", (None,)), "a weight: a constant of type float32[?] has no fixed shape"),
    ):
        with pytest.raises(InputError) as caught:
            tensor(data, kind, "a weight")
        assert caught.value.what == message
    with pytest.raises(UnsupportedError, match="does not read constants of type STRING"):
        tensor(data, Kind("STRING", (6,)), "a weight")
