"""The Core AI target: wiring only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from edgemix import child
from edgemix.latency.base import Latency
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import run_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress, promised
from edgemix.targets.coreai.support import findings

_ON_MACOS = sys.platform == "darwin"
_ROOM = "edgemix.targets.coreai"


class CoreAI:
    """An ``.aimodel``; run by Core AI where macOS is, elsewhere by Apple's own interpreter."""

    name: ClassVar[str] = "coreai"
    extra: ClassVar[str] = "coreai"
    title: ClassVar[str] = "Core AI"
    runtime: ClassVar[str] = "Core AI" if _ON_MACOS else "Core AI's interpreter, CPU"
    machine: ClassVar[str] = f"{_ROOM}.run:machine"

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that Core AI has no operator for, or whose operator brings the runtime down."""
        return findings(program)

    def promise(self, program: Program) -> Contract:
        """Integers within an LSB; real numbers to 1e-3.

        Its interpreter adds up one value after the other, which costs a norm over a whole image
        1e-4. What has no such norm is a hundred times nearer.
        """
        return promised(program, Contract("lsb", 1, 0.99), Contract("relative", bound=1e-3))

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write ``model.aimodel``."""
        request = {"program": str(program_file), "folder": str(folder)}
        answer = child.call(f"{_ROOM}.lower:lower", request, tool="coreai-torch")
        return Artifact.from_json(answer)

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays:
        """Outputs of Core AI's interpreter, as real numbers."""
        return run_in_child(
            f"{_ROOM}.run:run",
            {"model": str(folder / artifact.main), "artifact": artifact.to_json()},
            inputs,
            tool=self.runtime,
            progress=progress,
        )

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """What the saved model says about every operator's type."""
        request = {"model": str(folder / artifact.main)}
        answer = child.call(f"{_ROOM}.audit:audit", request, tool="Core AI")
        return tuple(OpPrecision(**op) for op in answer["ops"])

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency | None:
        """Measured on macOS; None elsewhere: an interpreter's time says nothing of a phone's."""
        if not _ON_MACOS:
            return None
        request = {
            "model": str(folder / artifact.main), "artifact": artifact.to_json(),
            "threads": threads,
        }  # fmt: skip
        return Latency(**child.call(f"{_ROOM}.latency:latency", request, tool="Core AI"))
