"""Budgets: what they accept, and how they judge."""

from __future__ import annotations

import pytest

from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.budget import Budget, judge
from edgemix.latency.host import measure

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
    assert Budget.parse(text, TARGETS).limit_ms == pytest.approx(limit)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("onnx=2", "has no unit that edgemix knows: none\n  try: use one of s, ms, us"),
        ("onnx=2hours", "has no unit that edgemix knows: hours"),
        ("onnx", "no budget: onnx\n  try: write it like onnx=2ms"),
        (
            "coreml=2ms",
            "for a target that is not being built: coreml\n  try: use one of onnx, tflite",
        ),
        ("onnx=0ms", "must be positive"),
        ("onnx=1.2.3ms", "has no number: 1.2.3"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Budget.parse(text, TARGETS)


def latency(p50: float) -> Latency:
    return Latency("measured", "this host", "test", p50, 2 * p50, 3 * p50, 200, 20, 1)


def test_verdicts() -> None:
    budget = Budget("onnx", 2.0)
    assert judge(budget, latency(2.0)).passed
    late = judge(budget, latency(5.0))
    assert not late.passed
    assert (late.found, late.why) == ("5 ms measured", "2.5 times the budget")
    assert not judge(budget, None).passed


def test_a_measurement_states_how_it_was_made() -> None:
    calls = []
    found = measure(lambda: calls.append(1), method="a list grows", threads=3)
    assert found.kind == "measured"
    assert found.runs + found.warmup == len(calls)
    assert found.runs >= 200
    assert 0 < found.p50_ms <= found.p90_ms <= found.p99_ms
    assert (found.method, found.threads) == ("a list grows", 3)
    assert found.environment["cores"].isdigit()
