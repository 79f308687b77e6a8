"""The TFLite target: wiring only."""

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
from edgemix.targets.tflite.audit import BETWEEN
from edgemix.targets.tflite.support import findings

_ROOM = "edgemix.targets.tflite"


class TFLite:
    """Full-integer TFLite, run in LiteRT on the CPU with its default XNNPACK kernels."""

    name: ClassVar[str] = "tflite"
    extra: ClassVar[str] = "tflite"
    title: ClassVar[str] = "TFLite"
    runtime: ClassVar[str] = "LiteRT, CPU (XNNPACK)"
    machine: ClassVar[str] = f"{_ROOM}.run:machine"

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that the converter cannot take."""
        return findings(program)

    def promise(self, program: Program) -> Contract:
        """Integers within an LSB, real numbers to 1e-4."""
        return promised(program, Contract("lsb", 1, 0.99))

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write ``model.tflite``."""
        request = {"program": str(program_file), "folder": str(folder)}
        answer = child.call(f"{_ROOM}.lower:lower", request, tool="the LiteRT converter")
        return Artifact.from_json(answer)

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays:
        """Outputs of LiteRT, as real numbers."""
        return run_in_child(
            f"{_ROOM}.run:run",
            {"model": str(folder / artifact.main), "artifact": artifact.to_json()},
            inputs,
            tool="LiteRT",
            progress=progress,
        )

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """The types of every operator in the flatbuffer."""
        quantized = any(b.encoding is not None for b in artifact.outputs)
        request = {
            "model": str(folder / artifact.main), "quantized": quantized,
            "states": quantized and bool(artifact.states),
            "between": [fact for fact in BETWEEN if quantized and fact in artifact.facts],
        }  # fmt: skip
        answer = child.call(f"{_ROOM}.audit:audit", request, tool="LiteRT")
        return tuple(OpPrecision(**op) for op in answer["ops"])

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency:
        """Measured on this machine."""
        return in_child(folder / artifact.main, threads, tool="LiteRT")

    def profile(
        self, model: Path, threads: int, runs: int | None, progress: Progress | None = None
    ) -> Told:
        """Times of every operator, measured on this machine."""
        request = {"model": str(model), "threads": threads, "runs": runs}
        answer = child.call(
            f"{_ROOM}.profile:profile", request, tool="LiteRT", on_progress=progress
        )
        return Told.from_json(answer)
