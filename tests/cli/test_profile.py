"""``edgemix profile`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from tests.cli.command import edgemix


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in "xy")
    nodes = [
        helper.make_node("Softmax", ["x"], ["z"], "soft"),
        helper.make_node("Erf", ["z"], ["y"], "error"),
    ]
    graph = helper.make_graph(nodes, "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path = tmp_path_factory.mktemp("profile") / "two.onnx"
    onnx.save(made, path)
    return path


def test_a_table_and_a_page(model: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = edgemix("profile", model, "--runs", 20, "--html", page)
    assert done.returncode == 0, done.stderr
    assert "measured by ONNX Runtime's profiler in 20 runs" in done.stdout.replace("\n", " ")
    for word in ("soft", "error", "Softmax", "by type", "no operator accounts for", "without"):
        assert word in done.stdout
    assert "<svg" in page.read_text() and "profile" in done.stderr


def test_json_is_alone(model: Path) -> None:
    done = edgemix("profile", model, "--runs", 20, "--threads", 2, "--json")
    assert done.returncode == 0 and not done.stderr
    found = json.loads(done.stdout)
    assert {(o["name"], o["op"]) for o in found["operators"]} == {
        ("soft", "Softmax"), ("error", "Erf"),
    }  # fmt: skip
    assert (found["kind"], found["threads"], found["runs"]) == ("measured", 2, 20)


def test_bad_input(model: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    for arguments, message in (
        (("nothing.onnx",), "error: there is no nothing.onnx"),
        (("broken.onnx", "--html", "page.html"), "cannot run broken.onnx: InvalidProtobuf"),
        ((model, "--html", "none/page.html"), "error: there is no folder none"),
        ((model, "--html", "."), "error: the page . is a folder"),
    ):
        done = edgemix("profile", *arguments, cwd=tmp_path)
        assert done.returncode == 2, arguments
        assert message in done.stderr.replace("\n", " "), done.stderr
        assert "Traceback" not in done.stderr and not done.stdout
    assert [p.name for p in tmp_path.iterdir()] == ["broken.onnx"]
