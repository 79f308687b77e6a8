"""Cycle-exact simulation by Verilator. Runs in a child process."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgemix.child import progress
from edgemix.encoding import FixedPoint
from edgemix.errors import InputError, ToolError
from edgemix.targets import arrays
from edgemix.targets.base import Arrays, Artifact, Binding
from edgemix.targets.fpga.precision import needed
from edgemix.targets.rtl.bits import Bytes, pack_bus, unpack_bus
from edgemix.targets.steps import run_sequences

_COMPILING = 0.9
"""Share of the time that compiling takes."""


def run(request: Mapping[str, Any]) -> dict[str, Any]:
    """Clock every sample through the design; the answer holds cycles and interval."""
    artifact = Artifact.from_json(request["artifact"])
    if artifact.states:
        stream = machine(request)
        run_sequences(stream, request)
        return {"cycles": stream.clocks, "interval": stream.clocks}
    (x,) = arrays.read(Path(request["inputs"]))
    shape = artifact.outputs[0].spec.shape[1:]
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        folder = Path(scratch)
        simulator = compiled(Path(request["model"]), folder)
        progress(_COMPILING)
        _packed((x,), artifact.inputs).tofile(folder / "in.bin")
        found = _simulate(simulator, folder)
        raw = np.fromfile(folder / "out.bin", np.uint8)
        raw = raw.reshape(len(x), -1) if len(x) else np.zeros((0, 0), np.uint8)
        (values,) = unpack_bus(raw, _types(artifact.outputs))
    arrays.save(Path(request["outputs"]), (values.reshape(len(x), *shape).astype(np.float32),))
    return found


class Simulation:
    """A stream through a design that holds its states itself, clock by clock."""

    clocks = 0
    """Clock edges of the last step, from the input to the output."""

    def __init__(self, request: Mapping[str, Any], scratch: Path) -> None:
        """Build the simulator in ``scratch`` and start it."""
        self._artifact = Artifact.from_json(request["artifact"])
        simulator = compiled(Path(request["model"]), scratch)
        self._process = subprocess.Popen(
            [str(simulator)], cwd=simulator.parents[1] / "rtl",
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip
        self._fresh = True

    def reset(self) -> None:
        """Raise the reset input before the next step."""
        self._fresh = True

    def step(self, inputs: Arrays) -> Arrays:
        """One step."""
        assert self._process.stdin is not None and self._process.stdout is not None
        record = bytes([self._fresh]) + _packed(inputs, self._artifact.inputs).tobytes()
        self._fresh = False
        self._process.stdin.write(record)
        self._process.stdin.flush()
        parts = [_types(self._artifact.outputs), _types([s.gives for s in self._artifact.states])]
        sizes = [math.ceil(sum(n * fixed.width for n, fixed in part) / 8) for part in parts]
        answer = self._process.stdout.read(sum(sizes) + 4)
        if len(answer) < sum(sizes) + 4:
            raise ToolError(f"the simulation ended with code {self._process.wait()}")
        self.clocks = int.from_bytes(answer[-4:], "little")
        raw = np.frombuffer(answer, np.uint8)
        values = [
            *unpack_bus(raw[None, : sizes[0]], parts[0]),
            *unpack_bus(raw[None, sizes[0] : sum(sizes)], parts[1]),
        ]
        return tuple(
            v.reshape(b.spec.shape).astype(np.float32)
            for v, b in zip(values, self._artifact.gives, strict=True)
        )


def machine(request: Mapping[str, Any]) -> Simulation:
    """A stream through a design with states."""
    scratch = tempfile.TemporaryDirectory(prefix="edgemix-")
    made = Simulation(request, Path(scratch.name))
    weakref.finalize(made, scratch.cleanup)
    progress(_COMPILING)
    return made


def _types(bound: Sequence[Binding]) -> list[tuple[int, FixedPoint]]:
    return [(math.prod(b.spec.shape), needed(b.encoding, b.spec.name)) for b in bound]


def _packed(values: Arrays, bound: Sequence[Binding]) -> Bytes:
    """Samples on the bus, as the program's own rounding puts them on its grid."""
    parts = []
    for x, binding in zip(values, bound, strict=True):
        encoding = binding.encoding
        assert encoding is not None
        flat = x.reshape(len(x), math.prod(x.shape[1:]))
        parts.append((encoding.integers(flat) - encoding.zero_point[0], encoding.bits))
    return pack_bus(parts)


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
