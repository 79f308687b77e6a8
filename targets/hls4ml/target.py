"""The hls4ml target: wiring only."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from edgemix import child
from edgemix.latency.base import Latency
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import run_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.hls4ml.audit import audit
from edgemix.targets.hls4ml.support import findings

_ROOM = "edgemix.targets.hls4ml"


@dataclass(frozen=True)
class Hls4ml:
    """FPGA firmware in fixed point, proven by its C simulation."""

    name: ClassVar[str] = "hls4ml"
    extra: ClassVar[str] = "hls4ml"
    title: ClassVar[str] = "hls4ml"
    runtime: ClassVar[str] = "C simulation (g++)"
    machine: ClassVar[str] = f"{_ROOM}.run:machine"
    hardware: Hardware = field(default_factory=Hardware)

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that have no layer, and values that are no fixed point."""
        return findings(program, self.hardware.interface)

    def promise(self, program: Program) -> Contract:
        """The program's integers."""
        return Contract("exact")

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write the hls4ml project."""
        request = {
            "program": str(program_file), "folder": str(folder),
            "hardware": self.hardware.to_json(),
        }  # fmt: skip
        return Artifact.from_json(child.call(f"{_ROOM}.project:lower", request, tool="hls4ml"))

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays:
        """Outputs of the C simulation."""
        request = {"model": str(folder / artifact.main), "artifact": artifact.to_json()}
        return run_in_child(
            f"{_ROOM}.run:run", request, inputs, tool="C simulation", progress=progress
        )

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """The types in the firmware's headers."""
        return audit(folder / artifact.main)

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency | None:
        """None: without synthesis there is no honest number yet."""
        return None
