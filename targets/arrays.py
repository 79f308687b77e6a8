"""How arrays travel between this process and the child that runs an artifact."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemix import child
from edgemix.targets.base import Arrays, Binding, Progress


def run_in_child(
    function: str,
    request: Mapping[str, Any],
    inputs: Arrays,
    *,
    tool: str,
    progress: Progress | None,
) -> Arrays:
    """Call ``function`` in a child with the inputs' file added to ``request``, as ``inputs``.

    The child writes its results to the file that the request names as ``outputs``.
    """
    return answer_in_child(function, request, inputs, tool=tool, progress=progress)[1]


def answer_in_child(
    function: str,
    request: Mapping[str, Any],
    inputs: Arrays,
    *,
    tool: str,
    progress: Progress | None,
) -> tuple[dict[str, Any], Arrays]:
    """:func:`run_in_child`, with the child's answer beside its results."""
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        given, found = Path(scratch) / "inputs.npz", Path(scratch) / "outputs.npz"
        save(given, inputs)
        request = {**request, "inputs": str(given), "outputs": str(found)}
        answer = child.call(function, request, tool=tool, on_progress=progress)
        return answer, read(found)


def encode(x: npt.NDArray[np.float32], binding: Binding) -> npt.NDArray[Any]:
    """Real numbers as an artifact takes them."""
    if binding.encoding is None or binding.dtype.startswith("float"):
        return np.ascontiguousarray(x)
    return binding.encoding.quantize(torch.from_numpy(np.ascontiguousarray(x))).numpy()


def decode(q: npt.NDArray[Any], binding: Binding) -> npt.NDArray[np.float32]:
    """What an artifact gives, as real numbers."""
    if binding.encoding is None or binding.dtype.startswith("float"):
        return np.asarray(q, np.float32)
    return binding.encoding.dequantize(torch.from_numpy(q)).numpy()


def save(path: Path, arrays: Arrays) -> None:
    """Arrays in order, as one ``.npz`` file."""
    path.write_bytes(pack(arrays))


def read(path: Path) -> Arrays:
    """The arrays that :func:`save` wrote."""
    return unpack(path.read_bytes())


def pack(arrays: Arrays) -> bytes:
    """Arrays in order, as one message."""
    named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays)}
    buffer = io.BytesIO()
    np.savez(buffer, **named)
    return buffer.getvalue()


def unpack(message: bytes) -> Arrays:
    """The arrays that :func:`pack` packed."""
    with np.load(io.BytesIO(message), allow_pickle=False) as stored:
        return tuple(stored[f"a{i}"] for i in range(len(stored.files)))
