"""Time of a Core ML prediction on this Mac. Runs in a child process, on macOS only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemix.extras import need
from edgemix.latency.host import measure


def latency(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure ``MLModel.predict`` on zeros; the answer is a Latency as JSON."""
    ct = need("coremltools", extra="coreml")
    model = ct.models.MLModel(request["model"], compute_units=ct.ComputeUnit.ALL)
    feed = {
        i.name: np.zeros(tuple(i.type.multiArrayType.shape), np.float32)
        for i in model.get_spec().description.input
    }
    method = "MLModel.predict, all compute units"
    return asdict(measure(lambda: model.predict(feed), method=method, threads=request["threads"]))
