"""What every connector does, and what it is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edgemix.latency.base import Latency
from edgemix.latency.board.sampling import SECONDS

__all__ = ["SECONDS", "TIMEOUT_S", "Connector", "Job", "Options", "Progress"]

Progress = Callable[[float], None]
"""Hears shares done, from 0 to 1."""


TIMEOUT_S = 900.0


@dataclass(frozen=True)
class Job:
    """What to measure."""

    model: Path
    """An .onnx or .tflite file, an .mlpackage folder; for reports, a project's folder."""
    threads: int = 1
    seconds: float = SECONDS
    """How long to take samples, after the warm-up."""
    timeout_s: float = TIMEOUT_S
    """For everything: copying, loading, measuring."""


@dataclass(frozen=True)
class Options:
    """What a user can say about a device besides its address."""

    python: str = "python3"
    """The Python there which has the runtime; a relative path starts in the user's home there."""
    ssh_config: Path | None = None
    """A file for ``ssh -F``; None: the user's own."""
    benchmark_model: Path | None = None
    """TFLite's ``benchmark_model`` for the phone's processor; None: it is there already."""


class Connector(Protocol):
    """A device that can be asked how long a model takes."""

    def measure(self, job: Job, progress: Progress) -> tuple[Latency, ...]:
        """Times of one inference, one for each way to run it; a budget is held against the first.

        Raises:
            InputError: the device cannot run such a model.
            ToolError: it cannot be reached, or what runs there failed.
        """
