"""What the board's side tells, as it arrives: here from this machine itself."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edgemix.errors import InputError, ToolError
from edgemix.latency.connect import CONNECTORS, parse
from edgemix.latency.connect.base import Job
from edgemix.latency.connect.stream import Place, follow
from edgemix.latency.samples import ENDED_EARLY

JOB = Job(Path("m.onnx"))


def told(*lines: str, code: int = 0, place: Place | None = None) -> list[tuple[str, int, str]]:
    script = f"import sys\nfor line in {lines!r}: print(line)\nsys.exit({code})"
    found = follow([sys.executable, "-c", script], JOB, place or Place("a board"), lambda _: None)
    return [(t.method, t.runs, t.environment.get(ENDED_EARLY, "")) for t in found]


def case(name: str, count: int) -> list[str]:
    return [
        f'{{"case": "{name}", "facts": {{}}}}',
        f'{{"times": {[5] * count}, "share": 1}}',
        '{"end": {"energy": "1 mJ"}}',
    ]


MACHINE = '{"machine": {}, "cases": 2, "warmup": 1}'
DONE = '{"done": true}'
LOST = Place("a board", lost=3)


def test_every_case_is_a_latency() -> None:
    found = told(MACHINE, *case("a", 5), *case("b", 6), DONE)
    assert found == [("a", 5, ""), ("b", 6, "")]


def test_a_lost_connection_keeps_whole_cases() -> None:
    why = "the connection was lost; these are the samples that arrived"
    assert told(MACHINE, *case("a", 70), *case("b", 9), code=3, place=LOST) == [("a", 70, why)]
    both = told(MACHINE, *case("a", 70), *case("b", 50), code=3, place=LOST)
    assert both == [("a", 70, why), ("b", 50, why)]


def test_another_exit_code_is_a_failure_whatever_arrived() -> None:
    with pytest.raises(ToolError, match="measuring on a board ended with exit code 4"):
        told(MACHINE, *case("a", 70), code=4, place=LOST)


def test_what_outlives_its_parent_does_not_hold_the_measurement() -> None:
    script = (
        "import subprocess, sys\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
    )
    start = time.monotonic()
    with pytest.raises(ToolError, match=r"it took longer than 1 s after 0 samples"):
        follow([sys.executable, "-c", script], replace(JOB, timeout_s=1), LOST, lambda _: None)
    assert time.monotonic() - start < 30


def test_times_that_no_clock_tells() -> None:
    with pytest.raises(ToolError, match="a board told something that is no measurement"):
        told(MACHINE, *case("a", 5)[:1], f'{{"times": [1{"0" * 400}], "share": 1}}')


def test_nothing_at_all() -> None:
    with pytest.raises(ToolError, match="ended with exit code 0"):
        told()
    with pytest.raises(ToolError, match="a board told no time"):
        told(DONE)


def test_what_it_lacks_is_passed_on() -> None:
    with pytest.raises(ToolError, match="a board cannot run the model: it has no x") as error:
        told(MACHINE, '{"error": "it has no x", "do": "get x"}')
    assert error.value.do == "get x"


def test_this_machine_is_a_connector(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_text("no model")
    shares: list[float] = []
    with pytest.raises(ToolError, match="this host cannot run the model: InvalidProtobuf:"):
        parse("host").measure(Job(broken), shares.append)
    with pytest.raises(InputError, match="this machine needs no address: there"):
        parse("host:there")


def test_a_kind_that_is_none() -> None:
    with pytest.raises(InputError, match="no way to reach a device called sssh") as error:
        parse("sssh:me@host")
    assert error.value.do is not None
    assert error.value.do.startswith(f"did you mean ssh? one of {', '.join(CONNECTORS)}")


def test_macos_needs_a_mac() -> None:
    if sys.platform != "darwin":
        with pytest.raises(InputError, match="this machine is no Mac"):
            parse("macos")
