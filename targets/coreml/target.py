"""The Core ML target: wiring only."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from edgemix import child
from edgemix.latency.base import Latency
from edgemix.latency.deployed import in_child
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.targets.arrays import run_in_child
from edgemix.targets.base import Arrays, Artifact, Finding, OpPrecision, Progress
from edgemix.targets.coreml import precision
from edgemix.targets.coreml.shipping import Shipping
from edgemix.targets.coreml.support import findings

_ON_MACOS = sys.platform == "darwin"
_ROOM = "edgemix.targets.coreml"


class CoreML:
    """An ML Program; run by Core ML where macOS is, elsewhere by the evaluator."""

    name: ClassVar[str] = "coreml"
    extra: ClassVar[str] = "coreml"
    title: ClassVar[str] = "Core ML"
    runtime: ClassVar[str] = "Core ML" if _ON_MACOS else "edgemix's ML Program evaluator"
    suffixes: ClassVar[tuple[str, ...]] = (".mlpackage",)
    machine: ClassVar[str] = f"{_ROOM}.run:machine"

    def __init__(self, shipping: Shipping | None = None) -> None:
        """Take what a person chose for an app."""
        self._shipping = shipping or Shipping()

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Nodes that Core ML cannot take."""
        if self._shipping.image is not None:
            self._shipping.image.check(program.inputs[0].shape)
        return findings(program)

    def promise(self, program: Program) -> Contract:
        """What 16 or 32 bits between the integers, or in place of them, allow."""
        return precision.promise(program)

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write ``model.mlpackage``."""
        request = {
            "program": str(program_file),
            "folder": str(folder),
            "shipping": self._shipping.to_json(),
        }
        answer = child.call(f"{_ROOM}.lower:lower", request, tool="coremltools")
        return Artifact.from_json(answer)

    def adopt(self, model: Path, program: Program) -> Artifact:
        """A package that others made, bound to a program."""
        with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
            saved = Path(scratch) / "program.edgemix"
            program.save(saved)
            request = {"model": str(model), "program": str(saved)}
            answer = child.call(f"{_ROOM}.adopt:adopt", request, tool="coremltools")
        return Artifact.from_json(answer)

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays | None:
        """Core ML's own prediction on macOS; elsewhere the evaluator's."""
        return run_in_child(
            f"{_ROOM}.run:run",
            {"model": str(folder / artifact.main), "artifact": artifact.to_json()},
            inputs,
            tool=self.runtime,
            progress=progress,
        )

    def sign(self, artifact: Artifact, folder: Path, proven: Mapping[str, str]) -> None:
        """Write what was proven into the package's metadata."""
        request = {"model": str(folder / artifact.main), "proven": dict(proven)}
        child.call(f"{_ROOM}.sign:sign", request, tool="coremltools")

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """What the saved package says about every operator's type."""
        quantized = any(b.encoding is not None for b in artifact.outputs)
        request = {
            "model": str(folder / artifact.main),
            "quantized": quantized,
            "wide": artifact.facts["floats"] == precision.FLOAT32,
            "states": quantized and bool(artifact.states),
        }
        answer = child.call(f"{_ROOM}.audit:audit", request, tool="coremltools")
        return tuple(OpPrecision(**op) for op in answer["ops"])

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency | None:
        """Measured on macOS; None elsewhere."""
        if not _ON_MACOS:
            return None
        return in_child(folder / artifact.main, threads, tool="Core ML")
