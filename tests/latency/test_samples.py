"""What raw times say: percentiles of all that are kept, what is left out, what is in doubt."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from edgemix.errors import ToolError
from edgemix.latency.base import Latency
from edgemix.latency.samples import FLAGS, LEFT_OUT, SCATTERED, SLOWING, latency


def of(times: Sequence[float]) -> Latency:
    return latency(times, device="board", method="a call", warmup=3, threads=2, environment={})


def test_percentiles_are_of_all_samples() -> None:
    found = of([float(t) for t in range(100, 0, -1)])
    assert (found.p50_ms, found.p90_ms, found.p99_ms) == (50.0, 90.0, 99.0)
    assert (found.runs, found.warmup, found.threads, found.device) == (100, 3, 2, "board")
    assert found.environment[LEFT_OUT] == "0 of 100, longer than 10 times the median"


def test_interrupted_samples_are_left_out_and_counted() -> None:
    found = of([1.0] * 99 + [10.0, 10.1])
    assert (found.runs, found.p99_ms) == (100, 1.0)
    assert found.environment[LEFT_OUT] == "1 of 101, longer than 10 times the median"


def test_many_long_samples_are_what_the_device_does() -> None:
    found = of(([1.0] * 9 + [50.0]) * 10)
    assert (found.runs, found.p99_ms) == (100, 50.0)
    assert found.environment[SCATTERED].startswith("10 of 100 samples are longer than 10 times")


@pytest.mark.parametrize(("last", "flagged"), [(1.1, False), (1.11, True), (0.5, False)])
def test_throttling_is_a_slower_last_third(last: float, flagged: bool) -> None:
    found = of([1.0] * 50 + [1.05] * 50 + [last] * 50)
    assert (SLOWING in found.environment) == flagged
    if flagged:
        assert found.environment[SLOWING] == "the last third took 11% longer than the first"


def test_steady_times_raise_no_flag() -> None:
    assert not of([1.0, 1.01, 0.99] * 50).environment.keys() & set(FLAGS)
    assert not of([1.0]).environment.keys() & set(FLAGS)


def test_no_sample_is_no_measurement() -> None:
    with pytest.raises(ToolError, match="no time came from board"):
        of([])
