"""Times of one call, over and over."""

from __future__ import annotations

import time
from collections.abc import Callable

WARMUP = 20
MIN_RUNS = 200
RUNS_PER_S = 2500
SECONDS = 2.0
LONGEST_S = 120.0
"""A slow call is not repeated ``MIN_RUNS`` times for longer than this."""
ENOUGH = 50
"""Samples with which a measurement that ends early is still one."""

_TOLD_S = 0.2
_TOLD_RUNS = 10_000


def sample(
    call: Callable[[], object], seconds: float, tell: Callable[[list[int], float], None]
) -> None:
    """Warm up, then time ``call`` for so many seconds.

    Args:
        call: one inference.
        seconds: how long; at least ``MIN_RUNS`` samples are taken, unless they take very long.
        tell: called now and then, between two calls, with the new times in ns and the share done.
    """
    for _ in range(WARMUP):
        call()
    times: list[int] = []
    runs, most = 0, int(RUNS_PER_S * max(seconds, SECONDS))
    start = told = time.perf_counter()
    share = 0.0
    while share < 1.0:
        begin = time.perf_counter_ns()
        call()
        times.append(time.perf_counter_ns() - begin)
        runs += 1
        now = time.perf_counter()
        share = _share(runs, most, now - start, seconds)
        if now - told > _TOLD_S or len(times) >= _TOLD_RUNS or share >= 1.0:
            tell(times, share)
            times, told = [], time.perf_counter()


def _share(runs: int, most: int, elapsed: float, seconds: float) -> float:
    """1 where it is enough."""
    planned = max(min(runs / MIN_RUNS, elapsed / seconds), runs / most)
    late = min(runs / ENOUGH, elapsed / max(LONGEST_S, seconds))
    return min(1.0, max(planned, late))
