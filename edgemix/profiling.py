"""Where the time of an artifact goes on this machine, beside what is estimated of a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgemix import measuring
from edgemix.errors import InputError
from edgemix.latency.profile import Profile, Step, profile

if TYPE_CHECKING:
    from edgemix.latency.work import Work
    from edgemix.program import Program

PROGRAM = "program.edgemix"

_INSTEAD = {
    "coreml": "on a Mac, Xcode tells it: open the .mlpackage, Performance; the whole with "
    "`edgemix measure --on macos`",
    "coreai": "on a Mac, Xcode tells it; the whole with `edgemix measure --on macos`",
    "hls4ml": "there, operators work side by side: `edgemix synth` tells cycles and area of each",
    "rtl": "there, operators work side by side: `edgemix synth` tells cycles and area of the whole",
}
"""What tells most, where no profiler is at hand."""


@dataclass(frozen=True)
class Asked:
    """What the user asked for."""

    path: Path
    """A target's folder, or a bare model."""
    threads: int = 1
    runs: int | None = None
    """None: as many as take a few seconds."""
    device: str | None = None
    """Whose estimate to show beside it."""


def run(asked: Asked, progress: Callable[[float], None]) -> Profile:
    """Measure.

    Raises:
        InputError: the folder or the device does not fit, or the target has no profiler.
        ToolError: the runtime failed.
    """
    name, model = _model(asked.path)
    # They take seconds to import, and a wrong path does without.
    from edgemix import targets
    from edgemix.targets.base import Profiling

    target = targets.load("coreml" if name == "mlpackage" else name)
    if not isinstance(target, Profiling):
        raise InputError(
            f"nothing here tells operator by operator where {target.title} spends its time",
            do=_INSTEAD[target.name],
        )
    program = _program(asked.path)
    if program is None and asked.device is not None:
        raise InputError(
            f"the program of {asked.path} is not known: it has no estimate",
            do=f"leave --device out, or name a target's folder beside its {PROGRAM}",
        )
    steps, estimate = ((), "") if program is None else _steps(program, asked.device, target.name)
    told = target.profile(model, asked.threads, asked.runs, progress)
    return profile(told, steps, artifact=str(model), target=target.name, estimate=estimate)


def _model(path: Path) -> tuple[str, Path]:
    """As in :func:`measuring.find`; of a target without a profiler, whatever it ships."""
    if path.is_dir() and path.suffix != ".mlpackage":
        from edgemix.evidence import read_artifact

        folder, artifact = read_artifact(path)
        if artifact.target in _INSTEAD:
            return artifact.target, folder / artifact.main
    return measuring.find(path)


def _program(path: Path) -> Program | None:
    """What the artifact in a folder was made of, where it still lies beside it."""
    from edgemix.evidence import read_artifact
    from edgemix.program import Program

    if not path.is_dir():
        return None
    folder, artifact = read_artifact(path)
    file = folder.parent / PROGRAM
    if not file.is_file():
        return None
    program = Program.load(file)
    return program if program.digest == artifact.program else None


def _steps(program: Program, device: str | None, target: str) -> tuple[tuple[Step, ...], str]:
    """Its operators, and what their estimates are of."""
    from edgemix import targets
    from edgemix.latency import device as devices
    from edgemix.latency.estimate import estimate
    from edgemix.latency.work import works

    found = works(program)
    if device is None:
        return tuple(_step(w, None) for w in found), ""
    place = devices.load(device)
    there = estimate(program, place, target if target in place.targets else None)
    whole = there.latency.p50_ms
    steps = tuple(_step(t.work, t.ms / whole) for t in there.operators)
    runs = there.runtime.target
    other = "" if runs == target else f" as {targets.load(runs).title} runs it"
    latency = there.latency
    return steps, f"{whole:.4g} ms on {latency.device}{other}, {latency.method}"


_ATTENTION = "scaled_dot_product_attention"


def _step(work: Work, estimated: float | None) -> Step:
    """``work`` as artifacts know it."""
    op = work.op
    if op == _ATTENTION:
        op = "matmul" if work.kind == "matrix" else "softmax"
    where = ", ".join(part for part in (work.where.module, work.where.source) if part)
    return Step(work.where.node, where, op, work.weights, estimated)
