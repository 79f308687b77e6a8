"""Time of a Core AI model on this Mac. Runs in a child process, on macOS only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemix.latency.host import measure
from edgemix.targets.base import Artifact
from edgemix.targets.coreai.run import Session


def latency(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure one call on zeros; the answer is a Latency as JSON."""
    session = Session(request["model"])
    artifact = Artifact.from_json(request["artifact"])
    feed = {b.name: np.zeros(b.spec.shape, np.float32) for b in artifact.takes}
    method = "InferenceFunction call, Core AI's choice of compute unit"
    return asdict(measure(lambda: session(feed), method=method, threads=request["threads"]))
