"""What this machine is, what else it does, and what a block of work takes of its energy."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

PROC = Path("/proc")
SYS = Path("/sys")

NOT_IDLE = "not idle"
BUSY = 0.1
"""The share of the processors from which on others disturb a measurement."""
_WATCHED_S = 0.3

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
    flags = set(_cpuinfo(("flags", "features")).split())
    return tuple(name for name in _ISA if name in flags)


def cpu_name() -> str:
    """The CPU's own name, as far as the system tells it."""
    if sys.platform == "darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        told = subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()
        return told or platform.machine()
    return _cpuinfo(("model name",)) or platform.processor() or platform.machine()


def board_name() -> str | None:
    """What the device tree calls the board; None where there is no device tree."""
    return (_read(PROC / "device-tree/model") or "").strip("\0\n ") or None


def governor() -> str | None:
    """The policy by which the first core chooses its clock; None where none is told."""
    return (_read(SYS / "devices/system/cpu/cpu0/cpufreq/scaling_governor") or "").strip() or None


def environment() -> dict[str, str]:
    """What an int8 result and a latency depend on."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cores": str(os.cpu_count()),
        "instruction sets": " ".join(instruction_sets()),
        "python": platform.python_version(),
    }


def busy_cores(seconds: float = _WATCHED_S) -> Mapping[int, float]:
    """The share of each core that others took while this process slept; empty where unknown."""
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    shares = {}
    for core in before.keys() & after.keys():
        total = after[core][1] - before[core][1]
        if total > 0:
            shares[core] = (after[core][0] - before[core][0]) / total
    return shares


def conditions(shares: Mapping[int, float]) -> dict[str, str]:
    """What else the machine does: its load, its governor, and whether it was idle."""
    cores = os.cpu_count() or 1
    load = os.getloadavg()[0]
    found = {"load": f"{load:.2f}"}
    set_to = governor()
    if set_to is not None:
        found["governor"] = set_to
    if shares:
        taken = sum(shares.values())
        if taken > BUSY * len(shares):
            found[NOT_IDLE] = (
                f"other processes took {taken:.1f} of {len(shares)} cores before the start"
            )
    # The load counts the last minute, an earlier measurement too: only where nothing else tells.
    elif load > 0.5 * cores:
        found[NOT_IDLE] = f"the load was {load:.2f} on {cores} cores before the start"
    return found


@contextlib.contextmanager
def pinned(threads: int, shares: Mapping[int, float]) -> Iterator[tuple[int, ...]]:
    """Keep every thread of this process on ``threads`` cores: the strongest, then the quietest.

    Yields:
        The cores; none where the system does not pin, or does not let this process.
    """
    if sys.platform != "linux":
        yield ()
        return
    cores = _choose(threads, shares)
    before = {}
    try:
        for task in _tasks():
            # A pool's thread may end meanwhile; a sandbox may forbid the call.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                before[task] = os.sched_getaffinity(task)
                os.sched_setaffinity(task, cores)
        yield cores if os.sched_getaffinity(0) == set(cores) else ()
    finally:
        for task in _tasks():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.sched_setaffinity(task, before.get(task, before[os.getpid()]))


def named(cores: Sequence[int]) -> str:
    """Cores for people."""
    return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores)) or 'none'}"


def energy() -> dict[str, int]:
    """RAPL's counters in µJ, one a processor package; empty where none can be read."""
    found = {}
    for zone in sorted(SYS.glob("class/powercap/intel-rapl:*")):
        name, counter = _read(zone / "name"), _read(zone / "energy_uj")
        # Zones with two colons are parts of a package, which has them counted.
        if zone.name.count(":") == 1 and (name or "").startswith("package") and counter:
            found[str(zone)] = int(counter)
    return found


def energy_each(before: Mapping[str, int], runs: int) -> dict[str, str]:
    """What one of so many inferences took since ``before``; nothing where that is not known."""
    total = joules(before, energy())
    if total is None:
        return {}
    return {"energy": f"{total / runs * 1e3:.4g} mJ an inference, of the whole CPU package (RAPL)"}


def joules(before: Mapping[str, int], after: Mapping[str, int]) -> float | None:
    """Energy between two readings, in J; None where there is none."""
    if not before or before.keys() != after.keys():
        return None
    total = 0
    for zone, start in before.items():
        taken = after[zone] - start
        if taken < 0:
            taken += int(_read(Path(zone) / "max_energy_range_uj") or 0)
        total += taken
    return total / 1e6


def _choose(threads: int, shares: Mapping[int, float]) -> tuple[int, ...]:
    """One core of each pair of hyperthreads first, as far as there are enough."""
    free = sorted(os.sched_getaffinity(0))
    chosen: list[int] = []
    shared: frozenset[int] = frozenset()
    while free and len(chosen) < threads:
        core = min(
            free, key=lambda c: (-_strength(c), c in shared, round(shares.get(c, 0.0), 1), c)
        )
        free.remove(core)
        chosen.append(core)
        shared |= _siblings(core)
    return tuple(sorted(chosen))


def _strength(core: int) -> int:
    """Of big and little cores; the same for all where the system tells nothing."""
    return int(_read(SYS / f"devices/system/cpu/cpu{core}/cpu_capacity") or 0)


def _siblings(core: int) -> frozenset[int]:
    told = _read(SYS / f"devices/system/cpu/cpu{core}/topology/thread_siblings_list") or str(core)
    found: set[int] = set()
    for part in told.strip().split(","):
        low, _, high = part.partition("-")
        found |= set(range(int(low), int(high or low) + 1))
    return frozenset(found)


def _ticks() -> dict[int, tuple[int, int]]:
    """Of every core, the time that it worked and all of its time."""
    found = {}
    for line in (_read(PROC / "stat") or "").splitlines():
        name, _, rest = line.partition(" ")
        if name.startswith("cpu") and name != "cpu":
            # user nice system idle iowait irq softirq steal; guests are in user already
            counts = [int(word) for word in rest.split()[:8]]
            found[int(name[3:])] = (sum(counts) - counts[3] - counts[4], sum(counts))
    return found


def _tasks() -> list[int]:
    return [int(task.name) for task in (PROC / "self/task").iterdir()]


def _cpuinfo(names: tuple[str, ...]) -> str:
    for line in (_read(PROC / "cpuinfo") or "").splitlines():
        if line.lower().startswith(names):
            return line.partition(":")[2].strip()
    return ""


def _read(path: Path) -> str | None:
    """A small file of the system's; None where there is none, or it is not for this user."""
    try:
        return path.read_text()
    except (OSError, UnicodeDecodeError):
        return None
