"""The ONNX target: wiring only."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from edgemix import child
from edgemix.latency.base import Latency
from edgemix.latency.deployed import in_child
from edgemix.latency.profile import Told
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import run_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress, promised
from edgemix.targets.onnx.support import findings

_ROOM = "edgemix.targets.onnx"


class Onnx:
    """QuantizeLinear/DequantizeLinear ONNX, run in ONNX Runtime on the CPU."""

    name: ClassVar[str] = "onnx"
    extra: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"
    runtime: ClassVar[str] = "ONNX Runtime, CPU"
    machine: ClassVar[str] = f"{_ROOM}.run:machine"

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that ONNX has no operator for."""
        return findings(program)

    def promise(self, program: Program) -> Contract:
        """Integers within an LSB, real numbers to 1e-4."""
        return promised(program, Contract("lsb", 1, 0.999))

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write ``model.onnx``."""
        request = {"program": str(program_file), "folder": str(folder)}
        answer = child.call(f"{_ROOM}.lower:lower", request, tool="the ONNX exporter")
        return Artifact.from_json(answer)

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays:
        """Outputs of ONNX Runtime, as real numbers."""
        return run_in_child(
            f"{_ROOM}.run:run",
            {"model": str(folder / artifact.main), "artifact": artifact.to_json()},
            inputs,
            tool="ONNX Runtime",
            progress=progress,
        )

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """The kernels that ONNX Runtime chooses after its own optimizations."""
        request = {"model": str(folder / artifact.main)}
        answer = child.call(f"{_ROOM}.audit:audit", request, tool="ONNX Runtime")
        return tuple(OpPrecision(**op) for op in answer["ops"])

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency:
        """Measured on this machine."""
        return in_child(folder / artifact.main, threads, tool="ONNX Runtime")

    def profile(
        self, model: Path, threads: int, runs: int | None, progress: Progress | None = None
    ) -> Told:
        """Times of every operator, measured on this machine."""
        request = {"model": str(model), "threads": threads, "runs": runs}
        answer = child.call(
            f"{_ROOM}.profile:profile", request, tool="ONNX Runtime", on_progress=progress
        )
        return Told.from_json(answer)
