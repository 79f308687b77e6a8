"""Time on this very machine, and what this machine is."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

from edgemix.latency.base import Latency

WARMUP = 20
MIN_RUNS = 200
MAX_RUNS = 5000
SECONDS = 2.0

_ISA = (
    "avx2",
    "avx512f",
    "avx_vnni",
    "avx512_vnni",
    "amx_int8",
    "neon",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)


def instruction_sets() -> tuple[str, ...]:
    """The vector extensions of this CPU that int8 kernels choose between."""
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.lower().startswith(("flags", "features")):
                flags |= set(line.partition(":")[2].split())
                break
    return tuple(name for name in _ISA if name in flags)


def cpu_name() -> str:
    """The CPU's own name, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment() -> dict[str, str]:
    """What an int8 result and a latency depend on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "instruction sets": " ".join(instruction_sets()),
        "python": platform.python_version(),
    }


def measure(call: Callable[[], object], *, method: str, threads: int) -> Latency:
    """Median and tail of ``call``'s time on this machine.

    Args:
        call: one inference.
        method: what is timed, for the reader.
        threads: how many threads the runtime was given.
    """
    for _ in range(WARMUP):
        call()
    times: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(times) < MIN_RUNS or (time.perf_counter() < end and len(times) < MAX_RUNS):
        start = time.perf_counter_ns()
        call()
        times.append((time.perf_counter_ns() - start) / 1e6)
    times.sort()
    return Latency(
        kind="measured",
        device="this host",
        method=method,
        p50_ms=_percentile(times, 50),
        p90_ms=_percentile(times, 90),
        p99_ms=_percentile(times, 99),
        runs=len(times),
        warmup=WARMUP,
        threads=threads,
        environment=environment(),
    )


def _percentile(ordered: list[float], percent: float) -> float:
    """The smallest value that at least ``percent`` of the values do not exceed."""
    rank = -(-len(ordered) * percent // 100)
    return round(ordered[int(rank) - 1], 6)
