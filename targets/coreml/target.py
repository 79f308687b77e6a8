"""The Core ML target: wiring only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import ClassVar

from edgemix import child
from edgemix.latency.base import Latency
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import run_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress
from edgemix.targets.coreml.support import findings

_ROOM = "edgemix.targets.coreml"


class CoreML:
    """An ML Program with int8 weights and activations; run where macOS is, read back elsewhere."""

    name: ClassVar[str] = "coreml"
    extra: ClassVar[str] = "coreml"
    title: ClassVar[str] = "Core ML"
    runtime: ClassVar[str] = "Core ML (macOS)"
    contract: ClassVar[Contract] = Contract("decisions", 0, 0.99)
    machine: ClassVar[str] = f"{_ROOM}.run:machine"

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that Core ML cannot take."""
        return findings(program)

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write ``model.mlpackage``."""
        request = {"program": str(program_file), "folder": str(folder)}
        answer = child.call(f"{_ROOM}.lower:lower", request, tool="coremltools")
        return Artifact.from_json(answer)

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays | None:
        """Core ML's own prediction on macOS; None elsewhere."""
        if sys.platform != "darwin":
            return None
        return run_in_child(
            f"{_ROOM}.run:run",
            {"model": str(folder / artifact.main), "artifact": artifact.to_json()},
            inputs,
            tool="Core ML",
            progress=progress,
        )

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """What the saved package says about every operator's type."""
        quantized = any(b.encoding is not None for b in artifact.outputs)
        request = {
            "model": str(folder / artifact.main),
            "quantized": quantized,
            "states": quantized and bool(artifact.states),
        }
        answer = child.call(f"{_ROOM}.audit:audit", request, tool="coremltools")
        return tuple(OpPrecision(**op) for op in answer["ops"])

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency | None:
        """Measured on macOS; None elsewhere."""
        if sys.platform != "darwin":
            return None
        request = {"model": str(folder / artifact.main), "threads": threads}
        return Latency(**child.call(f"{_ROOM}.latency:latency", request, tool="Core ML"))
