"""Time of a call on this very machine."""

from __future__ import annotations

from collections.abc import Callable

from edgemix.latency.base import Latency
from edgemix.latency.board import machine, sampling
from edgemix.latency.board.machine import environment, instruction_sets
from edgemix.latency.samples import latency

__all__ = ["THIS_HOST", "environment", "instruction_sets", "measure"]

THIS_HOST = "this host"


def measure(
    call: Callable[[], object], *, method: str, threads: int, seconds: float = sampling.SECONDS
) -> Latency:
    """Median and tail of ``call``'s time on this machine, this process kept on ``threads`` cores.

    The environment says what the machine was, whether it was idle, which samples were left out,
    whether they became slower, and what energy an inference took where that can be read.

    Args:
        call: one inference.
        method: what is timed, for the reader.
        threads: how many threads the runtime was given.
        seconds: how long to take samples.
    """
    times: list[int] = []
    shares = machine.busy_cores()
    about = {**machine.environment(), **machine.conditions(shares)}
    with machine.pinned(threads, shares) as cores:
        before = machine.energy()
        sampling.sample(call, seconds, lambda new, _: times.extend(new))
        about.update(machine.energy_each(before, len(times) + sampling.WARMUP))
    return latency(
        [t / 1e6 for t in times],
        device=THIS_HOST,
        method=method,
        warmup=sampling.WARMUP,
        threads=threads,
        environment={**about, "pinned to": machine.named(cores)},
    )
