"""What every profiler does around its own runs."""

from __future__ import annotations

from edgemix.errors import InputError, ToolError
from edgemix.latency.base import Latency
from edgemix.latency.board import runtimes
from edgemix.latency.host import measure

WARMUP = 10
"""Runs with the profiler on that are left out."""

_ALONE_S = 1.0
_ABOUT_S = 3.0
_FEWEST, _MOST = 12, 200


def unprofiled(model: str, threads: int) -> Latency:
    """Time of a model as it is deployed, to hold the profiled one against.

    Raises:
        InputError: its inputs have no fixed shape.
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
    return measure(case.call, method=case.method, threads=threads, seconds=_ALONE_S)


def repetitions(asked: int | None, alone: Latency) -> int:
    """How many runs to profile: what was asked, or what takes a few seconds."""
    return asked or min(max(round(_ABOUT_S * 1e3 / alone.p50_ms), _FEWEST), _MOST)
