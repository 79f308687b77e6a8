"""Budgets: what they accept, and how they judge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.budget import Budget, Figures, judge, judge_all
from edgemix.latency.host import measure
from edgemix.latency.resources import Resources
from edgemix.latency.units import duration, storage

TARGETS = ("onnx", "tflite")


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("onnx=2ms", 2.0),
        ("onnx=1.5s", 1500.0),
        ("tflite=50us", 0.05),
        ("onnx=3µs", 0.003),
        ("onnx=9ns", 9e-6),
    ],
)
def test_units(text: str, limit: float) -> None:
    budget = Budget.parse(text, TARGETS)
    assert (budget.what, budget.relative) == ("latency", False)
    assert budget.limit == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnx=2", 'the budget onnx=2: "2" has no unit\n  try: write it like 2ms'),
        ("onnx=2hours", "has no unit that edgemix knows: hours"),
        ("onnx", "no budget: onnx\n  try: write it like onnx=2ms, size=5MB or lut=50%"),
        (
            "coreml=2ms",
            "for a target that is not being built: coreml\n  try: use one of onnx, tflite",
        ),
        ("onnx=0ms", "must be positive"),
        ("onnx=1.2.3ms", "has no number: 1.2.3"),
        ("lut=50%", "is for an FPGA, and none is being built for"),
        ("onnx.gates=5", "something that edgemix does not count: gates"),
        ("onnx.lut=5", "is for an FPGA, and none is being built for"),
        ("size=5", '"5" has no unit\n  try: write it like 5MB'),
        (
            "size=5ms",
            '"5ms" is a time, and this is a budget of size: it wants one of B, kB, KiB, MB, MiB',
        ),
        ("onnx=5MB", "is a size, and this is a budget of time.*\n  try: write onnx.size=5MB"),
        ("iphone12=5kB", "is a size, and this is a budget of time"),
        ("size=5GB", "has no unit that edgemix knows: GB"),
        ("size=0B", "must be positive"),
        ("size=big", '"big" is no number with a unit'),
        (
            "pixel=2ms",
            "not being built: pixel\n  try: use one of onnx, tflite, iphone12, or name the device",
        ),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget.parse(text, TARGETS, (), ("iphone12",))


@pytest.mark.parametrize(
    ("text", "target", "limit"),
    [
        ("size=5MB", None, 5e6),
        ("onnx.size=500kB", "onnx", 5e5),
        ("tflite.size=2MiB", "tflite", 2 * 1024**2),
        ("size=64KiB", None, 65536),
        ("size=100B", None, 100),
    ],
)
def test_sizes(text: str, target: str | None, limit: float) -> None:
    budget = Budget.parse(text, TARGETS)
    assert (budget.target, budget.what, budget.limit) == (target, "size", limit)
    assert budget.of("onnx", ()) == (target in (None, "onnx"))
    assert not judge(budget, "onnx", Figures()).passed
    assert judge(budget, "onnx", Figures(size=int(limit))).passed
    large = judge(budget, "onnx", Figures(size=2 * int(limit)))
    assert (large.passed, large.why) == (False, "2 times the budget")


@dataclass(frozen=True)
class Guess:
    latency: Latency
    low_ms: float
    high_ms: float
    notes: tuple[str, ...] = ()


def test_a_budget_of_time_alone() -> None:
    assert Budget.of_time(" 20us ") == Budget(None, "latency", 0.02)
    for text, what in (("5", "has no unit"), ("5MB", "is a size"), ("onnx=2ms", "is no number")):
        with pytest.raises(InputError, match=f"^the budget {text}: .*{what}.*\n  try: .*like 2ms$"):
            Budget.of_time(text)


def test_a_device_has_a_budget_of_its_own() -> None:
    names = (TARGETS, (), ("iphone12", "pi-4"))
    budget = Budget.parse("iphone12=2ms", *names)
    assert budget == Budget(None, "latency", 2.0, device="iphone12")
    assert Budget.parse("onnx.pi-4=1s", *names) == Budget("onnx", "latency", 1e3, device="pi-4")
    near = Guess(replace(latency(3.0), kind="estimated"), 2.5, 4.0)
    figures = {
        "onnx": Figures(latency(1.0), on={"iphone12": near}),
        "tflite": Figures(latency(1.0)),
    }
    (late,) = judge_all([budget], figures, (), lambda b, t: f"{b.device} {t}")["onnx"]
    assert (late.asked, late.found) == ("≤ 2 ms on iphone12", "3 ms estimated (2.5 ms to 4 ms)")
    assert (late.passed, late.why, late.remedy) == (False, "1.5 times the budget", "iphone12 onnx")
    assert judge_all([budget], figures, ())["tflite"] == ()
    nobody = judge_all([Budget.parse("pi-4=1s", *names)], figures, ())
    assert [v.why for v in nobody["onnx"]] == ["nothing estimates this target's time on pi-4"]


def latency(p50: float) -> Latency:
    return Latency("measured", "this host", "test", p50, 2 * p50, 3 * p50, 200, 20, 1)


def test_verdicts() -> None:
    budget = Budget("onnx", "latency", 2.0)
    assert judge(budget, "onnx", Figures(latency(2.0))).passed
    late = judge(budget, "onnx", Figures(latency(5.0)))
    assert not late.passed
    assert (late.found, late.why) == ("5 ms measured", "2.5 times the budget")
    assert not judge(budget, "onnx", Figures()).passed


FPGA = ("rtl", "hls4ml")
COUNTED = Resources("Yosys", {"lut": 600, "dsp": 7}, {"lut": 1000, "dsp": 220, "ff": 9})


@pytest.mark.parametrize(
    ("text", "asked", "found", "passed"),
    [
        ("lut=60%", "LUT ≤ 60%", "600 (60.0%) by Yosys", True),
        ("lut=599", "LUT ≤ 599", "600 (60.0%) by Yosys", False),
        ("rtl.dsp=7", "DSP ≤ 7", "7 (3.2%) by Yosys", True),
        ("ff=50%", "FF ≤ 50%", "no count", False),
        ("uram=3", "URAM ≤ 3", "no count", False),
    ],
)
def test_resources(text: str, asked: str, found: str, passed: bool) -> None:
    budget = Budget.parse(text, (*TARGETS, *FPGA), FPGA)
    verdict = judge(budget, "rtl", Figures(resources=COUNTED))
    assert (verdict.asked, verdict.found, verdict.passed) == (asked, found, passed)
    assert passed == (verdict.why == "")
    assert not judge(budget, "rtl", Figures()).passed


def test_a_budget_for_any_target_passes_over_those_without_a_number() -> None:
    figures = {"rtl": Figures(latency(2.0), COUNTED), "hls4ml": Figures()}

    def judged(text: str, names: dict[str, Any] = figures) -> dict[str, list[bool]]:
        budget = Budget.parse(text, FPGA, FPGA)
        found = judge_all([budget], names, FPGA)
        assert set(found) == set(names)
        return {name: [v.passed for v in verdicts] for name, verdicts in found.items()}

    assert judged("latency=3ms") == {"rtl": [True], "hls4ml": []}
    assert judged("lut=10") == {"rtl": [False], "hls4ml": []}
    assert judged("hls4ml=3ms") == {"rtl": [], "hls4ml": [False]}
    assert judged("uram=1") == {"rtl": [False], "hls4ml": [False]}  # nobody has counted it
    assert judged("latency=1s", {"hls4ml": Figures()}) == {"hls4ml": [False]}


@pytest.mark.parametrize(
    ("ms", "text"),
    [
        (6.5e-5, "65 ns"), (1e-3, "1 µs"), (0.0362, "36.2 µs"), (0.9999999999, "1 ms"), (1500.0, "1.5 s"),
        (0.0, "0 ns"), (5e-8, "0.05 ns"), (2.0, "2 ms"),
    ],
)  # fmt: skip
def test_durations(ms: float, text: str) -> None:
    assert duration(ms) == text


def test_sizes_as_people_read_them() -> None:
    assert [storage(n) for n in (12, 1500, 5_234_567)] == ["12 B", "1.5 kB", "5.235 MB"]


def test_whom_a_budget_is_for() -> None:
    names = (*TARGETS, *FPGA)
    of = {
        text: [n for n in names if Budget.parse(text, names, FPGA).of(n, FPGA)]
        for text in ("latency=2us", "lut=5%", "rtl.lut=5%", "rtl=2us", "rtl.latency=2us")
    }
    assert of == {
        "latency=2us": list(names), "lut=5%": list(FPGA), "rtl.lut=5%": ["rtl"], "rtl=2us": ["rtl"],
        "rtl.latency=2us": ["rtl"],
    }  # fmt: skip


def test_a_measurement_states_how_it_was_made() -> None:
    calls = []
    found = measure(lambda: calls.append(1), method="a list grows", threads=3)
    assert found.kind == "measured"
    assert 0.95 * len(calls) <= found.runs + found.warmup <= len(calls)
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert (found.method, found.threads) == ("a list grows", 3)
    assert found.environment["cores"].isdigit()


def test_a_time_alone_is_for_the_one_device() -> None:
    alone = Budget.parse("2ms", ("coreml",), devices=("iphone12",))
    assert alone == Budget(None, "latency", 2.0, device="iphone12")
    assert Budget.parse("2ms", ("onnx",)) == Budget(None, "latency", 2.0)
    with pytest.raises(InputError, match="no unit"):
        Budget.parse("2", ("onnx",))
    with pytest.raises(InputError, match="no budget: fast"):
        Budget.parse("fast", ("onnx",))
