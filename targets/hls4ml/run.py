"""C simulation: the firmware's C++ compiled for this machine. Runs in a child process."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemix.child import progress
from edgemix.errors import ToolError
from edgemix.targets import arrays
from edgemix.targets.base import Artifact
from edgemix.targets.hls4ml.project import NAME, compiler

_FLAGS = ("-std=c++17", "-O1", "-fPIC", "-shared", "-w")
_REPORTS = 50


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Compile the project in a folder of its own and simulate every sample."""
    artifact = Artifact.from_json(request["artifact"])
    (x,) = arrays.read(Path(request["inputs"]))
    if artifact.inputs[0].layout == "nhwc":
        x = x.transpose(0, 2, 3, 1)
    x = np.ascontiguousarray(x.reshape(len(x), math.prod(x.shape[1:])), np.float32)
    shape = artifact.outputs[0].spec.shape[1:]
    found = np.zeros((len(x), int(np.prod(shape))), np.float32)
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        simulate = _load(Path(request["project"]), Path(scratch))
        for i in range(len(x)):
            simulate(x[i].ctypes.data_as(_FLOATS), found[i].ctypes.data_as(_FLOATS))
            if i % max(1, len(x) // _REPORTS) == 0:
                progress((i + 1) / len(x))
    if artifact.outputs[0].layout == "nhwc":
        found = found.reshape(len(x), *shape[1:], shape[0]).transpose(0, 3, 1, 2)
    arrays.save(Path(request["outputs"]), (found.reshape(len(x), *shape),))
    return {}


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
