"""Statistics of raw times, wherever they were taken: the one place that makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from edgemix.errors import ToolError
from edgemix.latency.base import Latency
from edgemix.latency.board.machine import NOT_IDLE

LEFT_OUT = "samples left out"
SLOWING = "slowing down"
SCATTERED = "scattered"
ENDED_EARLY = "ended early"
FLAGS = (NOT_IDLE, SLOWING, SCATTERED, ENDED_EARLY)
"""Names in an environment that put a measurement in doubt."""

_FAR = 10.0
_FEW = 0.05
_TREND = 0.10


def latency(
    times_ms: Sequence[float], *, device: str, method: str, warmup: int, threads: int,
    environment: Mapping[str, str],
) -> Latency:  # fmt: skip
    """What times in the order in which they were taken say.

    A sample longer than 10 times the median was interrupted: it is left out, and counted. Where
    more than 5 % are, that is what the device does: all are kept, and the environment says so. It
    also says when the last third is more than 10 % slower than the first: a device that throttles.

    Raises:
        ToolError: there is no sample.
    """
    kept, noticed = _kept(times_ms, device)
    return Latency(
        kind="measured",
        device=device,
        method=method,
        p50_ms=percentile(kept, 50),
        p90_ms=percentile(kept, 90),
        p99_ms=percentile(kept, 99),
        runs=len(kept),
        warmup=warmup,
        threads=threads,
        environment={**environment, **noticed, **_trend(kept)},
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed."""
    rank = -(-len(values) * percent // 100)
    return round(sorted(values)[int(rank) - 1], 6)


def _kept(times_ms: Sequence[float], device: str) -> tuple[Sequence[float], dict[str, str]]:
    if not times_ms:
        raise ToolError(f"no time came from {device}")
    limit = _FAR * median(times_ms)
    kept = [t for t in times_ms if t <= limit]
    far, rule = len(times_ms) - len(kept), "longer than 10 times the median"
    if far > _FEW * len(times_ms):
        said = f"{far} of {len(times_ms)} samples are {rule}; none is left out"
        return times_ms, {LEFT_OUT: f"0 of {len(times_ms)}", SCATTERED: said}
    return kept, {LEFT_OUT: f"{far} of {len(times_ms)}, {rule}"}


def _trend(times_ms: Sequence[float]) -> dict[str, str]:
    third = len(times_ms) // 3
    if third == 0:
        return {}
    first, last = median(times_ms[:third]), median(times_ms[-third:])
    if last <= first * (1 + _TREND):
        return {}
    return {SLOWING: f"the last third took {last / first - 1:.0%} longer than the first"}
