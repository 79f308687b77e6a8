"""C simulation: the firmware's C++ compiled for this machine. Runs in a child process."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgemix.child import progress
from edgemix.errors import ToolError
from edgemix.targets import arrays
from edgemix.targets.base import Arrays, Artifact, Binding
from edgemix.targets.hls4ml.project import NAME, compiler
from edgemix.targets.steps import run_sequences

_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w")
_REPORTS = 50


class Firmware:
    """A stream through firmware that holds its states itself."""

    def __init__(self, request: Mapping[str, Any], scratch: Path) -> None:
        """Compile it in ``scratch``."""
        self._artifact = Artifact.from_json(request["artifact"])
        self._step = _load(Path(request["model"]), scratch)
        given = 1 + len(self._artifact.gives)
        self._step.argtypes = [_FLOATS, ctypes.c_int, *[_FLOATS] * (given - 1)]
        self._fresh = True

    def reset(self) -> None:
        """Raise the reset input at the next step."""
        self._fresh = True

    def step(self, inputs: Arrays) -> Arrays:
        """One step."""
        x = _flat(inputs[0], self._artifact.inputs[0])
        found = [np.zeros((1, math.prod(b.spec.shape)), np.float32) for b in self._artifact.gives]
        pointers = [f.ctypes.data_as(_FLOATS) for f in found]
        self._step(x.ctypes.data_as(_FLOATS), int(self._fresh), *pointers)
        self._fresh = False
        return tuple(_shaped(f, b) for f, b in zip(found, self._artifact.gives, strict=True))


def machine(request: Mapping[str, Any]) -> Firmware:
    """A stream through firmware with states."""
    scratch = tempfile.TemporaryDirectory(prefix="edgemix-")
    weakref.finalize(made := Firmware(request, Path(scratch.name)), scratch.cleanup)
    return made


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the project in a folder of its own and simulate every sample."""
    artifact = Artifact.from_json(request["artifact"])
    if artifact.states:
        return run_sequences(machine(request), request)
    x = _flat(arrays.read(Path(request["inputs"]))[0], artifact.inputs[0])
    found = np.zeros((len(x), math.prod(artifact.outputs[0].spec.shape[1:])), np.float32)
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        simulate = _load(Path(request["model"]), Path(scratch))
        for i in range(len(x)):
            simulate(x[i].ctypes.data_as(_FLOATS), found[i].ctypes.data_as(_FLOATS))
            if i % max(1, len(x) // _REPORTS) == 0:
                progress((i + 1) / len(x))
    arrays.save(Path(request["outputs"]), (_shaped(found, artifact.outputs[0]),))
    return {}


def _flat(x: npt.NDArray[np.float32], binding: Binding) -> npt.NDArray[np.float32]:
    """Samples [n, ...] as the firmware has them, [n, elements]."""
    if binding.layout == "nhwc":
        x = x.transpose(0, 2, 3, 1)
    return np.ascontiguousarray(x.reshape(len(x), math.prod(x.shape[1:])), np.float32)


def _shaped(flat: npt.NDArray[np.float32], binding: Binding) -> npt.NDArray[np.float32]:
    """The inverse of :func:`_flat`."""
    shape = binding.spec.shape[1:]
    if binding.layout == "nhwc":
        return flat.reshape(len(flat), *shape[1:], shape[0]).transpose(0, 3, 1, 2)
    return flat.reshape(len(flat), *shape)


_FLOATS = ctypes.POINTER(ctypes.c_float)


def _load(project: Path, scratch: Path) -> Any:
    copy = scratch / "project"
    shutil.copytree(project, copy)
    sources = copy / "firmware"
    library = scratch / f"{NAME}.so"
    command = [
        compiler(), *_FLAGS, f"-I{sources / 'ap_types'}",
        f'-DWEIGHTS_DIR="{sources / "weights"}"',
        str(sources / f"{NAME}.cpp"), str(copy / f"{NAME}_bridge.cpp"), "-o", str(library),
    ]  # fmt: skip
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode != 0:
        errors = [line for line in built.stderr.splitlines() if "error" in line] or ["no message"]
        raise ToolError(f"g++ cannot compile the firmware: {errors[0]}")
    function = getattr(ctypes.CDLL(str(library)), f"{NAME}_float")
    function.restype = None
    function.argtypes = [_FLOATS, _FLOATS]
    return function
