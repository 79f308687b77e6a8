"""Cycle-exact simulation by Verilator. Runs in a child process."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgemix.child import progress
from edgemix.errors import InputError, ToolError
from edgemix.targets import arrays
from edgemix.targets.base import Artifact
from edgemix.targets.fpga.precision import needed
from edgemix.targets.rtl.bits import pack, unpack

_COMPILING = 0.9
"""Share of the time that compiling takes."""


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Clock every sample through the design; the answer holds cycles and interval."""
    artifact = Artifact.from_json(request["artifact"])
    (x,) = arrays.read(Path(request["inputs"]))
    given, produced = artifact.inputs[0].encoding, artifact.outputs[0].encoding
    assert given is not None and produced is not None
    shape = artifact.outputs[0].spec.shape[1:]
    integers = given.integers(x.reshape(len(x), math.prod(x.shape[1:]))) - given.zero_point[0]
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        folder = Path(scratch)
        simulator = compiled(Path(request["project"]), folder)
        progress(_COMPILING)
        pack(integers, given.bits).tofile(folder / "in.bin")
        found = _simulate(simulator, folder)
        count = int(np.prod(shape))
        raw = np.fromfile(folder / "out.bin", np.uint8)
        values = unpack(
            raw.reshape(len(x), -1) if len(x) else np.zeros((0, 0), np.uint8),
            count, needed(produced, "the output"),
        )  # fmt: skip
    arrays.save(Path(request["outputs"]), (values.reshape(len(x), *shape).astype(np.float32),))
    return found


def compiled(project: Path, scratch: Path) -> Path:
    """The design as a program for this machine, built in ``scratch``.

    Raises:
        InputError: Verilator, make or a compiler is missing.
        ToolError: they refuse the design.
    """
    for tool in ("verilator", "make", "g++"):
        if shutil.which(tool) is None:
            raise InputError(
                f"simulating RTL needs {tool}", do="apt-get install verilator make g++"
            )
    copy = scratch / "project"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("build"))
    # A caller's own make must not lend this one its job server.
    inherited = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MFLAGS")}
    made = subprocess.run(
        ["make", "-C", str(copy), "simulate"], capture_output=True, text=True, check=False,
        env=inherited,
    )  # fmt: skip
    if made.returncode != 0:
        lines = [line for line in made.stderr.splitlines() if "rror" in line] or ["no message"]
        raise ToolError(f"Verilator cannot build the design: {lines[0]}")
    return copy / "build" / "simulate"


def _simulate(simulator: Path, folder: Path) -> dict[str, Any]:
    process = subprocess.Popen(
        [str(simulator), str(folder / "in.bin"), str(folder / "out.bin")],
        cwd=simulator.parents[1] / "rtl", stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    said = None
    for line in process.stdout:
        if line.startswith("progress "):
            progress(_COMPILING + (1 - _COMPILING) * float(line.split()[1]))
        said = re.match(r"latency (\d+) cycles, interval (\d+)", line) or said
    if process.wait() != 0 or said is None:
        raise ToolError(f"the simulation ended with code {process.returncode}")
    return {"cycles": int(said[1]), "interval": int(said[2])}
