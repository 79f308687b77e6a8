"""From what a deployment found to the Report's fields."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from edgemix import files
from edgemix.latency.budget import Figures, Verdict
from edgemix.latency.estimator import Estimate
from edgemix.program import Program, StateSpec, TensorSpec
from edgemix.proof import Fidelity
from edgemix.report import schema
from edgemix.targets.base import Artifact, OpPrecision, Target


def model(program: Program, macs: int) -> schema.Model:
    """The program that was deployed."""
    return schema.Model(
        source=program.origin.source,
        licence=program.origin.licence,
        digest=program.digest,
        inputs=tuple(_tensor(s) for s in program.inputs),
        outputs=tuple(_tensor(s) for s in program.outputs),
        states=tuple(_tensor(s) for s in program.states),
        parameters=program.parameters,
        macs=macs,
        float_bytes=4 * program.parameters,
        history=tuple(schema.HistoryStep(**asdict(step)) for step in program.history),
    )


def target(
    kind: Target,
    artifact: Artifact,
    folder: Path,
    fidelity: Fidelity | None,
    precision: tuple[OpPrecision, ...],
    figures: Figures,
    budget_ms: float | None,
    verdicts: tuple[Verdict, ...],
) -> schema.TargetResult:
    """One artifact and everything that was found out about it."""
    latency, resources = figures.latency, figures.resources
    return schema.TargetResult(
        name=kind.name,
        title=kind.title,
        runtime=kind.runtime,
        main=artifact.main,
        size=files.size(folder / artifact.main),
        files=listing(folder, artifact),
        toolchain=dict(artifact.toolchain),
        facts=dict(artifact.facts),
        fidelity=None if fidelity is None else fidelity_result(fidelity),
        precision=tuple(schema.Precision(**asdict(op), kept=op.kept) for op in precision),
        latency=None if latency is None else schema.LatencyResult(**asdict(latency)),
        estimates=tuple(_estimate(name, found) for name, found in figures.on.items()),
        resources=None if resources is None else schema.ResourceResult(**asdict(resources)),
        budget_ms=budget_ms,
        verdicts=tuple(schema.VerdictResult(**asdict(v)) for v in verdicts),
        replay=f"edgemix validate {kind.name}",
    )


def _estimate(device: str, found: Estimate) -> schema.EstimateResult:
    return schema.EstimateResult(
        device=device, latency=schema.LatencyResult(**asdict(found.latency)),
        low_ms=found.low_ms, high_ms=found.high_ms, notes=tuple(found.notes),
    )  # fmt: skip


def fidelity_result(fidelity: Fidelity) -> schema.FidelityResult:
    """Fidelity with its contract as text."""
    return schema.FidelityResult(**{**asdict(fidelity), "contract": str(fidelity.contract)})


def listing(folder: Path, artifact: Artifact) -> tuple[schema.File, ...]:
    """What is shipped, with hashes; a folder counts as one."""
    path = folder / artifact.main
    return (schema.File(path=artifact.main, bytes=files.size(path), sha256=files.sha256(path)),)


def _tensor(spec: TensorSpec | StateSpec) -> schema.Tensor:
    layout = spec.layout if isinstance(spec, TensorSpec) else ""
    return schema.Tensor(name=spec.name, shape=spec.shape, dtype=spec.dtype, layout=layout)
