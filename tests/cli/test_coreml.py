"""``edgemix deploy --to coreml`` as an app's author uses it: shapes, labels, and what is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.command import edgemix

FACTORY = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(6, 8, 3, padding=1), nn.Linear(8, 3)

    def forward(self, x):
        x = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        scores = torch.softmax(x @ x.transpose(1, 2), -1) @ x
        return self.head((x + scores).reshape(1, x.shape[1], 8).mean(1))


def create():
    torch.manual_seed(0)
    return Net(), torch.zeros(1, 20, 6)


class Placed(nn.Module):
    def forward(self, x):
        return (x * torch.arange(x.shape[1])[:, None].float().sin()).mean(1)


class Loud(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x):
        return self.down(self.up(x * 300000.0)) / 300000.0


def loud():
    torch.manual_seed(0)
    return Loud(), torch.zeros(1, 20, 6)


def placed():
    return Placed(), torch.zeros(1, 20, 6)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("place")
    (folder / "net.py").write_text(FACTORY)
    (folder / "labels.txt").write_text("yes\nno\nnothing\n")
    x = np.random.default_rng(0).normal(size=(40, 20, 6)).astype(np.float32)
    np.savez(folder / "data.npz", x=x)
    return folder


def test_a_package_of_several_shapes_tells_what_was_proven(place: Path) -> None:
    done = edgemix(
        "deploy", "net:create", "--to", "coreml", "--recipe", "int8-exact", "--calibrate",
        "data.npz", "--shapes", "1x20x6,1x50x6", "--labels", "labels.txt", "--license",
        "MIT", "--out", "out", "--json", cwd=place,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (target,) = json.loads(done.stdout)["targets"]
    gates = {v["gate"]: v for v in target["verdicts"]}
    assert {"fidelity", "fidelity at 1×50×6"} <= set(gates)
    assert all(v["passed"] for v in gates.values())

    package = place / "out/coreml/model.mlpackage"
    told = json.loads(edgemix("inspect", package, "--json", cwd=place).stdout)["metadata"]
    assert told["classes"] == '["yes", "no", "nothing"]'
    assert told["edgemix.fidelity"].startswith(gates["fidelity"]["found"])
    assert "of 40 samples by edgemix's ML Program evaluator" in told["edgemix.fidelity"]
    assert told["edgemix.contract"] == "≤ 1 LSB for 99.0%: kept"
    # The evidence speaks of the package as it is now.
    assert edgemix("validate", place / "out/coreml", cwd=place).returncode == 0


@pytest.mark.parametrize(
    ("source", "shapes", "message"),
    [
        ("net:placed", "1x30x6", "an input of 1×30×6 needs another graph: mul"),
        ("net:create", "1x30", "takes [1, 20, 6], not [1, 30]"),
    ],
)
def test_shapes_that_cannot_be(place: Path, source: str, shapes: str, message: str) -> None:
    done = edgemix(
        "deploy", source, "--to", "coreml", "--calibrate", "data.npz", "--shapes", shapes,
        "--out", "refused", cwd=place,
    )  # fmt: skip
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())
    assert not (place / "refused").exists()


def test_shapes_for_targets_that_take_one_are_refused(place: Path) -> None:
    done = edgemix(
        "deploy", "net:create", "--to", "onnx", "--calibrate", "data.npz", "--shapes", "1x50x6",
        "--out", "fixed", cwd=place,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "--shapes is for coreml, which --to does not name" in done.stderr
    assert not (place / "fixed").exists()


@pytest.mark.slow
def test_what_leaves_the_range_of_sixteen_bits_is_named(place: Path) -> None:
    done = edgemix(
        "deploy", "net:loud", "--to", "coreml", "--recipe", "float16", "--calibrate", "data.npz",
        "--out", "loud", "--json", cwd=place,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    warnings = " ".join(json.loads(done.stdout)["warnings"])
    assert "beyond the range of 16-bit floats (±65,504): linear (up, net.py:33) with " in warnings
    assert "so deploy this model in float32" in warnings
