"""The RTL target: wiring only."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from edgemix import child, files
from edgemix.latency.base import Latency
from edgemix.latency.resources import Resources
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import answer_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.rtl.audit import audit
from edgemix.targets.rtl.support import findings

_ROOM = "edgemix.targets.rtl"
_ENOUGH = 4
"""Samples behind each other that show the interval."""
_SIMULATED: dict[str, tuple[int, int, int]] = {}
"""Cycles, interval and number of samples of the last simulation of a project, by its content: the
simulator takes minutes to build, and what it counts never changes."""
SYNTHESIS_S = 4 * 3600.0
"""Yosys takes hours over the largest designs that the target accepts."""


@dataclass(frozen=True)
class Rtl:
    """Pipelined Verilog, one sample every clock, proven by Verilator."""

    name: ClassVar[str] = "rtl"
    extra: ClassVar[str] = "rtl"
    title: ClassVar[str] = "RTL"
    runtime: ClassVar[str] = "Verilator"
    machine: ClassVar[str] = f"{_ROOM}.run:machine"
    hardware: Hardware = field(default_factory=Hardware)

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that become no logic, and values that are no fixed point."""
        return findings(program)

    def promise(self, program: Program) -> Contract:
        """The program's integers."""
        return Contract("exact")

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write the Verilog project."""
        request = {
            "program": str(program_file), "folder": str(folder),
            "hardware": self.hardware.to_json(),
        }  # fmt: skip
        return Artifact.from_json(child.call(f"{_ROOM}.lower:lower", request, tool="da4ml"))

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays:
        """Outputs of the cycle-exact simulation."""
        return self._simulate(artifact, folder, inputs, progress)

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """The operations in the Verilog."""
        return audit(folder / artifact.main)

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency:
        """Clock edges from the input port to the output port, counted in simulation."""
        project = files.sha256(folder / artifact.main)
        if project not in _SIMULATED:
            samples = (1, _ENOUGH) if artifact.states else (_ENOUGH,)
            zeros = np.zeros((*samples, *artifact.inputs[0].spec.shape[1:]), np.float32)
            self._simulate(artifact, folder, (zeros,), None)
        cycles, interval, runs = _SIMULATED[project]
        clock = float(artifact.facts["clock_ns"])
        ms = cycles * clock * 1e-6
        return Latency(
            kind="simulated", device=str(artifact.facts["part"]),
            method=f"Verilator: {cycles} cycles of {clock:g} ns, a sample every {interval}; "
            "the clock is asked for, place and route decides",
            p50_ms=ms, p90_ms=ms, p99_ms=ms, runs=runs, warmup=0, threads=1,
            environment={
                "cycles": str(cycles), "interval": str(interval), "clock_ns": f"{clock:g}",
            },
        )  # fmt: skip

    def resources(self, artifact: Artifact, folder: Path) -> Resources:
        """Cells by Yosys, without place and route."""
        request = {"project": str(folder / artifact.main), "part": artifact.facts["part"]}
        found = child.call(f"{_ROOM}.cells:count", request, tool="Yosys", timeout=SYNTHESIS_S)
        return Resources(**found)

    def _simulate(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None
    ) -> Arrays:
        request = {"model": str(folder / artifact.main), "artifact": artifact.to_json()}
        answer, outputs = answer_in_child(
            f"{_ROOM}.run:run", request, inputs, tool="Verilator", progress=progress
        )
        runs = math.prod(inputs[0].shape[: 2 if artifact.states else 1])
        if runs >= _ENOUGH:
            times = int(answer["cycles"]), int(answer["interval"]), runs
            _SIMULATED[files.sha256(folder / artifact.main)] = times
        return outputs
