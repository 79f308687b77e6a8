"""Measuring an artifact on a device, or reading what its synthesis reports, and a budget on it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.budget import Budget, Figures, Verdict, judge
from edgemix.latency.connect import CONNECTORS, Make, parse
from edgemix.latency.connect.base import SECONDS, TIMEOUT_S, Job, Options, Progress

_BARE = (".onnx", ".tflite", ".mlpackage")


@dataclass(frozen=True)
class Asked:
    """What the user asked for."""

    path: Path
    on: str
    """``KIND[:ADDRESS]``."""
    limit: str | None = None
    """The longest median, like ``2ms``; None: any."""
    threads: int = 1
    seconds: float = SECONDS
    timeout_s: float = TIMEOUT_S
    options: Options = field(default_factory=Options)


@dataclass(frozen=True)
class Measured:
    """What was found of one artifact."""

    target: str
    model: str
    latencies: tuple[Latency, ...]
    """A budget is held against the first."""
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Vivado:
    """``vivado[:FOLDER]``: the time that the reports of a project's synthesis say."""

    reports: Path | None

    @classmethod
    def at(cls, address: str, options: Options) -> Vivado:
        """The folder of reports; empty: the one that `edgemix synth` made."""
        return cls(Path(address) if address else None)

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """Nothing runs.

        Raises:
            InputError: there are no reports, they are another project's, or they tell no time.
        """
        from edgemix import synthesis
        from edgemix.evidence import read_artifact

        folder, artifact = read_artifact(job.model)
        if artifact.target != "hls4ml":
            raise InputError(
                f"{folder} holds an artifact for {artifact.target}, not for Vivado",
                do="name the folder of hls4ml, or measure with another --on",
            )
        reports = self.reports or folder / synthesis.WORKSPACE
        if not reports.is_dir():
            raise InputError(
                f"there is no folder of reports {reports}",
                do="run `edgemix synth`, or name it: vivado:FOLDER",
            )
        found = synthesis.synthesize(synthesis.Job(job.model, reports), _Silent())
        if found.latency is None:
            raise InputError(f"the reports in {reports} tell no latency: it depends on the data")
        return (found.latency,)


class _Silent:
    def step(self, title: str, total: float | None = None) -> AbstractContextManager[Any]:
        return nullcontext()


KINDS: Mapping[str, Make] = {**CONNECTORS, "vivado": Vivado.at}


def find(path: Path) -> tuple[str, Path]:
    """The target and the model in a target's folder, or of a bare model.

    Raises:
        InputError: there is neither.
    """
    if path.suffix in _BARE and path.exists():
        return path.suffix.removeprefix("."), path
    if not path.exists():
        raise InputError(f"there is no {path}", do="name a target's folder, like out/onnx")
    if path.is_file():
        raise InputError(
            f"{path} is no model that can be measured", do=f"give one of {', '.join(_BARE)}"
        )
    # It takes seconds to import, and bare models do without.
    from edgemix.evidence import read_artifact

    folder, artifact = read_artifact(path)
    model = folder / artifact.main
    if not model.exists():
        raise InputError(f"{folder} lacks its model: {artifact.main}", do="deploy it again")
    return artifact.target, model


def measure(asked: Asked, progress: Progress) -> Measured:
    """Times of an artifact on a device, and the verdict on them.

    Raises:
        InputError: the folder, the limit or the device does not fit.
        ToolError: the device could not be reached, or failed.
    """
    device = parse(asked.on, asked.options, KINDS)
    target, model = find(asked.path)
    budget = None if asked.limit is None else Budget.of_time(asked.limit)
    job = Job(model, asked.threads, asked.seconds, asked.timeout_s)
    latencies = device.measure(job, progress)
    verdicts = () if budget is None else (judge(budget, target, Figures(latencies[0])),)
    return Measured(target, str(model), latencies, verdicts)
