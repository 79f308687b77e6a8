"""``host``: this machine. ONNX Runtime, LiteRT with XNNPACK; Core ML where it is a Mac."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from edgemix.errors import InputError, ToolError
from edgemix.latency.base import Latency
from edgemix.latency.board import runtimes
from edgemix.latency.connect.base import Job, Options, Progress
from edgemix.latency.connect.stream import Place, follow, tail
from edgemix.latency.host import THIS_HOST


@dataclass(frozen=True)
class Host:
    """A process of its own on this machine."""

    @classmethod
    def at(cls, address: str, options: Options) -> Host:
        """There is one only."""
        if address:
            raise InputError(f"this machine needs no address: {address}", do="write just host")
        return cls()

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """See :class:`edgemix.latency.connect.base.Connector`."""
        place = Place(THIS_HOST, explain=_explain)
        command = [sys.executable, "-m", "edgemix.latency.board", *arguments(job)]
        return follow([*command, str(job.model.resolve())], job, place, progress)


def arguments(job: Job) -> list[str]:
    """What the board's side is told, but for the model.

    Raises:
        InputError: no board runs such a model.
    """
    try:
        runtimes.kind_of(str(job.model))
    except runtimes.Missing as error:
        raise InputError(error.what, do=error.do) from error
    # It ends by itself a little later than it would be ended from here.
    return [
        "--threads", str(job.threads), "--seconds", f"{job.seconds:g}",
        "--limit", str(int(job.timeout_s) + 10),
    ]  # fmt: skip


def _explain(code: int, log: str) -> ToolError | None:
    if code >= 0:
        return None
    return ToolError(f"the runtime crashed\n{tail(log)}".rstrip(), do="run `edgemix doctor`")
