"""What every profiler does around its own runs."""

from __future__ import annotations

from edgemix.latency.base import Latency
from edgemix.latency.deployed import deployed

WARMUP = 10
"""Runs with the profiler on that are left out."""

_ALONE_S = 1.0
_ABOUT_S = 3.0
_FEWEST, _MOST = 12, 200


def unprofiled(model: str, threads: int) -> Latency:
    """Time to hold the profiled one against; raises as :func:`deployed`."""
    return deployed(model, threads, _ALONE_S)


def repetitions(asked: int | None, alone: Latency) -> int:
    """How many runs to profile: what was asked, or what takes a few seconds."""
    return asked or min(max(round(_ABOUT_S * 1e3 / alone.p50_ms), _FEWEST), _MOST)
