"""Time of an ONNX artifact in ONNX Runtime on this machine. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemix.latency.host import measure
from edgemix.targets.onnx.run import session


def latency(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure ``session.run`` on zeros; the answer is a Latency as JSON."""
    runner = session(request["model"], threads=request["threads"])
    feed = {i.name: np.zeros(i.shape, np.float32) for i in runner.get_inputs()}
    return asdict(
        measure(
            lambda: runner.run(None, feed),
            method="ONNX Runtime InferenceSession.run, float in and out",
            threads=request["threads"],
        )
    )
