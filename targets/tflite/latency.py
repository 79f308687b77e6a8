"""Time of a TFLite artifact in LiteRT on this machine. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemix.latency.host import measure
from edgemix.targets.tflite.run import interpreter


def latency(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure ``Interpreter.invoke`` on zeros; the answer is a Latency as JSON."""
    runner = interpreter(request["model"], threads=request["threads"])
    for detail in runner.get_input_details():
        runner.set_tensor(detail["index"], np.zeros(detail["shape"], detail["dtype"]))
    return asdict(
        measure(
            runner.invoke, method="LiteRT Interpreter.invoke, XNNPACK", threads=request["threads"]
        )
    )
