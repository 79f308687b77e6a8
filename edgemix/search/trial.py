"""One trial in a process of its own: a whole deployment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgemix import pipeline
from edgemix.deployment import importable, parse
from edgemix.latency.estimator import house
from edgemix.search.outcome import values
from edgemix.search.space import chosen


def child(request: Mapping[str, Any]) -> dict[str, Any]:
    """Deploy what was chosen into a folder; the answer has the objectives' values."""
    file = Path(request["file"])
    deployment = parse(request["text"], file, Path(request["folder"]))
    assert deployment.search is not None
    importable(file.parent)
    order = chosen(deployment.order, deployment.search, request["params"], Path(request["folder"]))
    command = ("edgemix", "search", file.name, *(f"{k}={v}" for k, v in request["params"].items()))
    report = pipeline.deploy(replace(order, command=command), estimator=house())
    return {"values": values(report, request["objectives"])}
