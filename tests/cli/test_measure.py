"""``edgemix measure`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edgemix.cli import console
from edgemix.latency.base import Latency
from edgemix.measuring import Measured
from tests.cli.command import edgemix


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("measure") / "relu.onnx"
    onnx.save(made, path)
    return path


def test_a_bare_model_on_this_machine(model: Path) -> None:
    done = edgemix("measure", model, "--seconds", "0.2", "--threads", "2")
    assert done.returncode == 0, done.stderr
    assert f"{model} on this host, 2 threads, measured" in done.stdout.replace("\n", "")
    for word in ("p50", "p90", "p99", "left out", "cpu: ", "load: ", "runtime: onnxruntime"):
        assert word in done.stdout
    assert "measure" in done.stderr


def test_a_budget_is_a_gate(model: Path) -> None:
    missed = edgemix("measure", model, "--seconds", "0.1", "--budget", "1ns")
    assert missed.returncode == 1
    assert "FAILED onnx budget: asked ≤ 1 ns" in missed.stdout
    kept = edgemix("measure", model, "--seconds", "0.1", "--budget", "10s", "--json")
    assert kept.returncode == 0 and not kept.stderr
    found = json.loads(kept.stdout)
    assert (found["target"], found["model"]) == ("onnx", str(model))
    (latency,) = found["latencies"]
    assert latency["kind"] == "measured" and latency["p50_ms"] > 0
    assert "samples left out" in latency["environment"]
    assert [v["passed"] for v in found["verdicts"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing.onnx",), "error: there is no nothing.onnx"),
        (("text.txt",), "text.txt is no model that can be measured"),
        (("empty",), "empty holds no artifact of edgemix"),
        (("broken.onnx",), "error: this host cannot run the model: InvalidProtobuf"),
        (("broken.tflite",), "error: this host cannot run the model: ValueError"),
        (("broken.onnx", "--on", "usb"), "no way to reach a device called usb"),
        (("broken.onnx", "--on", "ssh:"), "no address for ssh: nothing"),
        (("broken.onnx", "--on", "adb"), "benchmark_model runs .tflite alone"),
        (("broken.onnx", "--on", "vivado"), "holds no artifact of edgemix"),
        (("broken.onnx", "--budget", "2"), '"2" has no unit'),
        (
            ("broken.onnx", "--budget", "5MB"),
            "this is a budget of time: it wants one of s, ms, us, µs, ns",
        ),
        (("broken.onnx", "--timeout", "inf"), "Invalid value for '--timeout'"),
        (("broken.onnx", "--budget", "fast"), '"fast" is no number with a unit'),
        (("broken.onnx", "--threads", "0"), "Invalid value for '--threads'"),
    ],
)
def test_what_cannot_be_measured(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    for name in ("text.txt", "broken.onnx", "broken.tflite"):
        (tmp_path / name).write_text("nothing")
    (tmp_path / "empty").mkdir()
    done = edgemix("measure", *arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert message in done.stderr.replace("\n", " ").replace("  ", " ")
    assert not done.stdout


def test_what_differs_between_ways_to_run_is_told_of_each(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def time(method: str, **environment: str) -> Latency:
        about = {"cpu": "Apple M4", **environment}
        return Latency("measured", "a Mac", method, 1.0, 2.0, 3.0, 200, 20, 1, about)

    found = Measured(
        "coreml", "m.mlpackage",
        (time("all [/units]", operations="90% GPU"), time("CPU", operations="100% CPU",
                                                          **{"slowing down": "by 20%"})), (),
    )  # fmt: skip
    console.print_measured(found)
    said = capsys.readouterr().out
    assert said.count("cpu: Apple M4") == 1 and "all [/units]" in said
    assert "all [/units]: operations: 90% GPU" in said
    assert "CPU: operations: 100% CPU" in said and "note: CPU: slowing down: by 20%" in said
