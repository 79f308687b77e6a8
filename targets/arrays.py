"""How arrays travel between this process and the child that runs an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemix import child
from edgemix.targets.base import Arrays, Progress


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


def save(path: Path, arrays: Arrays) -> None:
    """Arrays in order, as one ``.npz`` file."""
    named: dict[str, Any] = {f"a{i}": a for i, a in enumerate(arrays)}
    np.savez(path, **named)


def read(path: Path) -> Arrays:
    """The arrays that :func:`save` wrote."""
    with np.load(path, allow_pickle=False) as stored:
        return tuple(stored[f"a{i}"] for i in range(len(stored.files)))
