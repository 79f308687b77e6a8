"""Synthesis of an FPGA artifact, here or read from reports, and what it found out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from edgemix import targets
from edgemix.errors import InputError
from edgemix.evidence import read_artifact
from edgemix.latency.base import Latency
from edgemix.latency.budget import Budget, Figures, Verdict, judge
from edgemix.latency.resources import Resources
from edgemix.targets.base import Artifact, Countable
from edgemix.targets.fpga import vendor
from edgemix.targets.fpga.reports import Module
from edgemix.targets.hls4ml.reports import Reports, collect

WORKSPACE = "synthesis"


class Listener(Protocol):
    """Hears which step runs."""

    def step(self, title: str, total: float | None = None) -> AbstractContextManager[Any]:
        """One step."""


@dataclass(frozen=True)
class Found:
    """What synthesis says about a design."""

    target: str
    part: str
    clock_ns: float
    """Asked for."""
    estimated_ns: float | None
    """What the tool thinks that the logic needs; None where nothing estimates it."""
    cycles: tuple[int, int] | None
    interval: tuple[int, int] | None
    latency: Latency | None
    counts: tuple[Resources, ...]
    """From the coarsest to the most exact."""
    modules: tuple[Module, ...]
    cosimulated: bool | None
    """Whether RTL simulation passed; None where none ran."""
    sources: tuple[str, ...]
    verdicts: tuple[Verdict, ...] = ()


@dataclass(frozen=True)
class Job:
    """What the user asked for."""

    project: Path
    reports: Path | None = None
    steps: tuple[str, ...] = ("csim", "csynth")
    budgets: tuple[str, ...] = ()
    timeout_s: float = 4 * 3600.0
    fresh: bool = False


def synthesize(job: Job, listener: Listener) -> Found:
    """Run a project's synthesis, or read the reports of one; judge it by its budgets.

    Raises:
        InputError: the folder holds no FPGA artifact, or the reports are another project's.
        ToolError: a tool failed; what was done before is kept.
    """
    folder, artifact = read_artifact(job.project)
    if artifact.target not in targets.FPGA:
        raise InputError(
            f"{folder} holds an artifact for {artifact.target}, which is not synthesized",
            do=f"name the folder of one of {', '.join(targets.FPGA)}",
        )
    name = artifact.target
    budgets = [Budget.parse(text, (name,), (name,)) for text in job.budgets]
    if name == "rtl":
        found = _rtl(job, folder, artifact, listener)
    else:
        found = _hls(job, folder, artifact, listener)
    exact = found.counts[-1] if found.counts else None
    verdicts = [judge(b, name, Figures(found.latency, exact)) for b in budgets]
    return Found(**{**vars(found), "verdicts": (*found.verdicts, *verdicts)})


def _hls(job: Job, folder: Path, artifact: Artifact, listener: Listener) -> Found:
    project = folder / artifact.main
    part, clock = str(artifact.facts["part"]), float(artifact.facts["clock_ns"])
    if job.reports is not None:
        return _read(collect(job.reports, project, part, clock), artifact)
    steps = vendor.ordered(job.steps)
    tool = vendor.tool_for(artifact.facts["backend"])
    workspace = vendor.Workspace.prepare(project, folder / WORKSPACE, tool, fresh=job.fresh)
    for step in steps:
        if step not in workspace.done:
            with listener.step(f"{tool.name}: {step}"):
                vendor.run(tool, workspace, step, job.timeout_s)
    if "csynth" not in workspace.done:
        return Found("hls4ml", part, clock, None, None, None, None, (), (), None, ())
    return _read(collect(workspace.project, project, part, clock), artifact)


def _read(reports: Reports, artifact: Artifact) -> Found:
    s, u, c = reports.synthesis, reports.utilization, reports.cosimulation
    cycles = c.latency if c is not None else s.latency
    interval = c.interval if c is not None and c.interval is not None else s.interval
    return Found(
        artifact.target, str(artifact.facts["part"]), s.clock_ns, s.estimated_ns, cycles, interval,
        None if cycles is None else _reported(reports, cycles, interval),
        (s.resources,) if u is None else (s.resources, u.resources), s.modules,
        None if c is None else c.passed, tuple(str(p) for p in reports.files), _timing(reports),
    )  # fmt: skip


def _reported(
    reports: Reports, cycles: tuple[int, int], interval: tuple[int, int] | None
) -> Latency:
    s = reports.synthesis
    how = "cosimulation" if reports.cosimulation is not None else "C synthesis"
    every = "" if interval is None else f", a sample every {interval[1]}"
    ms = cycles[1] * s.clock_ns * 1e-6
    return Latency(
        kind="reported", device=s.part,
        method=f"{s.tool}, {how}: at most {cycles[1]} cycles of {s.clock_ns:g} ns{every}",
        p50_ms=ms, p90_ms=ms, p99_ms=ms, runs=0, warmup=0, threads=1,
        environment={"cycles": f"{cycles[0]} to {cycles[1]}", "clock_ns": f"{s.clock_ns:g}"},
    )  # fmt: skip


def _timing(reports: Reports) -> tuple[Verdict, ...]:
    """Whether the clock is kept and RTL simulation passed: facts that no budget has to ask for."""
    s, c = reports.synthesis, reports.cosimulation
    asked = f"≤ {s.clock_ns:g} ns with {s.uncertainty_ns:g} ns of uncertainty"
    why = "" if s.meets_clock else "the tool expects the logic to be slower than the clock"
    found = [
        Verdict("clock", "hls4ml", asked, f"{s.estimated_ns:g} ns", s.meets_clock, why)
    ]  # fmt: skip
    if c is not None:
        why = "" if c.passed else "the RTL does not do what the C++ does"
        said = "passed" if c.passed else "failed"
        found.append(Verdict("cosimulation", "hls4ml", "bit-identical", said, c.passed, why))
    return tuple(found)


def _rtl(job: Job, folder: Path, artifact: Artifact, listener: Listener) -> Found:
    if job.reports is not None:
        raise InputError("an RTL project needs no reports: Verilator and Yosys run here")
    target = targets.load("rtl")
    with listener.step("Verilator: simulate"):
        latency = target.latency(artifact, folder, 1)
    assert latency is not None and isinstance(target, Countable)
    with listener.step("Yosys: count cells (minutes)"):
        count = target.resources(artifact, folder)
    cycles, interval = (int(latency.environment[name]) for name in ("cycles", "interval"))
    return Found(
        "rtl", latency.device, float(artifact.facts["clock_ns"]), None, (cycles, cycles),
        (interval, interval), latency, (count,), (), None, (),
    )  # fmt: skip


def steps_of(text: str) -> Sequence[str]:
    """``csim,csynth`` as names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())
