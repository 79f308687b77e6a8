"""Asking for integer and getting float is seen, named, and fails the deployment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from onnx import helper

from edgemix import child, targets
from edgemix.order import Order
from edgemix.pipeline import _verdicts
from edgemix.program import Program
from edgemix.targets.base import OpPrecision
from edgemix.targets.onnx.audit import _precisions


def test_a_float_model_sold_as_integer_is_seen(
    float_program: Program, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    target = targets.load("tflite")
    artifact = target.lower(float_program, program_file(float_program), tmp_path)
    honest = target.audit(artifact, tmp_path)
    assert {(op.asked, op.achieved) for op in honest} == {("float", "float")}
    request = {
        "model": str(tmp_path / artifact.main),
        "quantized": True,
        "states": False,
        "between": [],
    }
    answer = child.call("edgemix.targets.tflite.audit:audit", request, tool="LiteRT")
    sold = [OpPrecision(**op) for op in answer["ops"]]
    assert not any(op.kept for op in sold)
    assert {"CONV_2D", "SOFTMAX"} <= {op.op for op in sold}


def test_the_verdict_names_the_operators_that_stayed_in_float() -> None:
    precision = (
        OpPrecision("Conv", "c1", "integer", "integer"),
        OpPrecision("Softmax", "attention", "integer", "float"),
    )
    order = Order(source="x", targets=("onnx",), out=Path("out"), calibrate="x", evaluate="x")
    (verdict,) = _verdicts(order, targets.load("onnx"), None, precision)
    assert not verdict.passed
    assert verdict.found == "1 of 2"
    assert verdict.why == "in float: Softmax attention"


def test_a_deep_float_graph_is_read_without_following_every_path() -> None:
    # Each value is read twice: following paths would take 2^2000 of them.
    nodes = [helper.make_node("Add", [f"x{i}", f"x{i}"], [f"x{i + 1}"]) for i in range(2000)]
    graph = helper.make_graph(nodes, "deep", [], [])
    found = _precisions(graph, set())
    assert len(found) == 2000
    assert {(op.asked, op.achieved) for op in found} == {("float", "float")}
