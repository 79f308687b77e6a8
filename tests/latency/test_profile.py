"""From what a profiler tells to shares of the time, with places in the model."""

from __future__ import annotations

from dataclasses import asdict

import pytest

from edgemix.errors import ToolError
from edgemix.latency.base import Latency
from edgemix.latency.profile import Node, Operator, Run, Step, Told, aligned, plain, profile

ALONE = Latency("measured", "this host", "run", 1.0, 1.1, 1.2, 200, 20, 2, {"cpu": "one"})


def told(*runs: Run, floor_ms: float = 0.0) -> Told:
    operators = (
        Operator("conv_a", "QLinearConv", 0),
        Operator("shuffle", "Transpose", None),
        Operator("conv_b", "QLinearConv", 2, calls=2),
    )
    nodes = (Node("Conv", 12), Node("Relu"), Node("Conv", 30))
    return Told("a profiler", operators, nodes, runs, ALONE, floor_ms)


STEPS = (
    Step("conv2d", "stem, net.py:1", "conv2d", 12, 0.5),
    Step("relu", "act, net.py:2", "relu", 0, 0.1),
    Step("conv2d_1", "head, net.py:3", "conv2d", 30, 0.3),
)
RUN = Run(1.0, (0.2, 0.1, 0.6))


def test_shares_and_the_overhead_make_up_the_whole() -> None:
    found = profile(told(RUN), STEPS, artifact="m", target="onnx", estimate="of a board")
    assert sum(o.share for o in found.operators) + found.overhead == pytest.approx(1)
    assert sum(t.share for t in found.types) + found.overhead == pytest.approx(1)
    assert found.overhead_ms == pytest.approx(0.1)
    assert [o.name for o in found.operators] == ["conv_b", "conv_a", "shuffle"]
    assert [(t.op, t.count) for t in found.types] == [("QLinearConv", 3), ("Transpose", 1)]
    assert (found.kind, found.threads, found.unprofiled_ms) == ("measured", 2, 1.0)


def test_operators_have_their_places_and_estimates() -> None:
    found = profile(told(RUN), STEPS, artifact="m", target="onnx", estimate="of a board")
    places = {o.name: (o.node, o.where, o.estimated) for o in found.operators}
    assert places == {
        "conv_a": ("conv2d", "stem, net.py:1", 0.5),
        "shuffle": ("", "", None),
        "conv_b": ("conv2d_1", "head, net.py:3", 0.3),
    }
    assert found.types[0].estimated == pytest.approx(0.8)
    assert found.estimated_elsewhere == pytest.approx(0.1)


def test_without_a_program_there_are_times_and_no_places() -> None:
    found = profile(told(RUN), (), artifact="m", target="onnx")
    assert {(o.where, o.estimated) for o in found.operators} == {("", None)}
    assert found.estimated_elsewhere is None


def test_interrupted_runs_are_left_out() -> None:
    slow = Run(90.0, (80.0, 0.1, 0.6))
    found = profile(told(RUN, slow, RUN, RUN), STEPS, artifact="m", target="onnx")
    assert (found.total_ms, found.runs) == (pytest.approx(1.0), 4)


def test_what_distorts_is_said() -> None:
    assert profile(told(RUN), STEPS, artifact="m", target="onnx").notes == ()
    slower = told(Run(3.0, (1.0, 1.0, 1.0)), floor_ms=1e-3)
    (note,) = profile(slower, STEPS, artifact="m", target="onnx").notes
    assert "3.0 times as slow" in note
    (note,) = profile(told(RUN, floor_ms=0.1), STEPS, artifact="m", target="onnx").notes
    assert "multiples of 100 µs: up to 30%" in note
    (note,) = profile(told(Run(0.5, (0.2, 0.1, 0.1))), STEPS, artifact="m", target="onnx").notes
    assert "2.0 times as long without" in note


def test_operators_that_are_too_short_to_be_seen_are_told() -> None:
    few = told(Run(0.5, (0.4, 0.0, 0.0)), floor_ms=1e-3)
    (*_, note) = profile(few, STEPS, artifact="m", target="onnx").notes
    assert note == (
        "no time is seen of 2 of 3 operators: each is too short for a profiler that counts whole "
        "multiples of 1 µs"
    )
    none = told(Run(0.0, (0.0, 0.0, 0.0)), floor_ms=1e-3)
    with pytest.raises(
        ToolError, match="no time: 1 ms are too short .* multiples of 1 µs"
    ) as error:
        profile(none, STEPS, artifact="m", target="onnx")
    assert error.value.do == "`edgemix measure` times the whole"


@pytest.mark.parametrize("runs", [(), (Run(0.0, (0.0, 0.0, 0.0)),)])
def test_a_profiler_that_tells_nothing(runs: tuple[Run, ...]) -> None:
    with pytest.raises(ToolError, match="profiler tells"):
        profile(told(*runs), STEPS, artifact="m", target="onnx")


def test_told_survives_json() -> None:
    assert Told.from_json(asdict(told(RUN))) == told(RUN)


def test_alignment_keeps_the_order_of_both() -> None:
    assert aligned("abcd", "xbyd", str.__eq__) == [(1, 1), (3, 3)]
    assert aligned("ab", "ba", str.__eq__) in ([(0, 1)], [(1, 0)])
    assert aligned("", "ab", str.__eq__) == []


@pytest.mark.parametrize(
    ("spelled", "name"),
    [("HARD_SWISH", "hardswish"), ("AVERAGE_POOL_2D", "avgpool2d"), ("LOGISTIC", "sigmoid"),
     ("BATCH_MATMUL", "matmul"), ("conv2d", "conv2d")],
)  # fmt: skip
def test_one_operation_has_one_name(spelled: str, name: str) -> None:
    assert plain(spelled) == name
