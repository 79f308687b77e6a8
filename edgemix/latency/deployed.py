"""Time of a model as it is deployed, in its own runtime on this very machine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemix import child
from edgemix.errors import InputError, ToolError
from edgemix.latency.base import Latency
from edgemix.latency.board import runtimes, sampling
from edgemix.latency.host import measure


def deployed(model: str, threads: int, seconds: float = sampling.SECONDS) -> Latency:
    """Of the first way to run it, on zeros.

    Raises:
        InputError: its inputs have no fixed shape, or its runtime is missing.
        ToolError: its runtime refuses it.
    """
    try:
        case = next(runtimes.cases(model, threads))
    except runtimes.Missing as error:
        raise InputError(error.what, do=error.do) from error
    except Exception as error:  # whatever a runtime raises over a model
        first = (str(error).splitlines() or [""])[0]
        raise ToolError(
            f"its runtime cannot run {model}: {type(error).__name__}: {first}",
            do="check the model, and whether the runtime is too old for it",
        ) from error
    return measure(case.call, method=case.method, threads=threads, seconds=seconds)


def in_child(model: Path, threads: int, *, tool: str) -> Latency:
    """As :func:`deployed`, in a child process.

    Args:
        model: an .onnx, .tflite or .mlpackage.
        threads: of the runtime.
        tool: its name, for messages.

    Raises:
        EdgemixError: it cannot be measured, or the child crashed.
    """
    request = {"model": str(model), "threads": threads}
    return Latency(**child.call(f"{__name__}:_answer", request, tool=tool))


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    return asdict(deployed(request["model"], request["threads"]))
