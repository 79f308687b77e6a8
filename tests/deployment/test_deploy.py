"""A deployment from a file, with budgets that it misses, and what is said of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from edgemix import pipeline
from edgemix.deployment import parse
from edgemix.errors import InputError
from edgemix.latency.base import Latency
from edgemix.latency.estimator import house
from edgemix.program import Program
from edgemix.report import schema
from edgemix.report.html import render
from tests.cli.command import edgemix

TEXT = """\
out = "built"
targets = ["onnx"]
devices = ["phone", "board.toml"]
[model]
source = "edgemix.models.demo:create"
[data]
calibrate = "digits.npz"
samples = 16
[recipe]
name = "float32"
[budget]
phone = "6ms"
board = "1s"
size = "13kB"
max_drop = 100
"""


@dataclass(frozen=True)
class Device:
    name: str
    targets: tuple[str, ...] = ("onnx",)


@dataclass(frozen=True)
class Guess:
    latency: Latency
    low_ms: float
    high_ms: float
    notes: tuple[str, ...] = ("by a table",)


class Table:
    """Whoever quantizes more waits less."""

    def device(self, text: str) -> Device:
        return Device(text, ("coreml",) if text == "watch" else ("onnx",))

    def estimate(self, program: Program, device: Any, target: str) -> Guess:
        ms = {"int8": 2.0, "w8": 5.0}.get(program.recipe, 9.0)
        return Guess(
            Latency("estimated", device.name, "a table", ms, ms, ms, 0, 0, 1), ms - 1, ms + 1
        )


@pytest.fixture
def folder(digits_file: Path) -> Iterator[Path]:
    """The digits lie beside the deployment's file."""
    return digits_file.parent


def test_estimates_reach_report_gates_and_page(folder: Path) -> None:
    order = parse(TEXT, folder / "deploy.toml").order
    report = pipeline.deploy(order, estimator=Table())
    (target,) = report.targets
    assert [(e.device, e.latency.p50_ms, e.low_ms) for e in target.estimates] == [
        ("phone", 9.0, 8.0), ("board", 9.0, 8.0),
    ]  # fmt: skip
    failed = {v.asked: v for v in target.verdicts if not v.passed}
    assert set(failed) == {"≤ 6 ms on phone", "size ≤ 13 kB"}
    assert failed["≤ 6 ms on phone"].found == "9 ms estimated (8 ms to 10 ms)"
    assert failed["≤ 6 ms on phone"].remedy.startswith("w8 would meet it: about 5 ms by estimate")
    assert failed["size ≤ 13 kB"].remedy.startswith("w8 would meet it: about 10")
    assert schema.load(folder / "built" / "report.json") == report
    page = render(report)
    assert "w8 would meet it" in page and "phone: 9 ms" in page


def test_devices_that_cannot_be(folder: Path) -> None:
    order = parse(TEXT, folder / "deploy.toml").order
    with pytest.raises(InputError, match="nothing here estimates times on devices"):
        pipeline.deploy(order)
    with pytest.raises(
        InputError, match="watch runs none of the targets.*\n  try: add one of coreml"
    ):
        pipeline.deploy(replace(order, devices=("watch",), budgets=()), estimator=Table())
    with pytest.raises(InputError, match="two devices have one name: a/own.toml, b/own.toml"):
        twice = replace(order, devices=("a/own.toml", "b/own.toml"), budgets=())
        pipeline.deploy(twice, estimator=Table())
    with pytest.raises(InputError, match="nothing estimates times on zynq7020\n.*edgemix synth"):
        pipeline.deploy(replace(order, devices=("zynq7020",), budgets=()), estimator=house())
    with pytest.raises(InputError, match="no contract: exact\n  try: write it like onnx=lsb:1@99%"):
        bare = replace(order, devices=(), budgets=(), contracts=("exact",))
        pipeline.deploy(bare, estimator=house())
    assert not (folder / "built").exists()


def test_the_command_takes_the_file_and_options_win(folder: Path) -> None:
    text = TEXT.replace('devices = ["phone", "board.toml"]\n', "").replace(
        'phone = "6ms"\nboard = "1s"\n', ""
    )
    (folder / "deploy.toml").write_text(text)
    # From another folder: paths are the file's, and --recipe and --budget win over it.
    file = f"{folder.name}/deploy.toml"
    done = edgemix("deploy", file, "--recipe", "w8", "--budget", "size=5kB", cwd=folder.parent)
    assert done.returncode == 1, done.stderr
    assert "recipe w8" in done.stdout and "size ≤ 5 kB" in done.stdout
    assert "13 kB" not in done.stdout
    assert "onnx, size ≤ 5 kB: no recipe known" in done.stdout
    report = json.loads((folder / "built" / "report.json").read_text())
    assert report["recipe"]["name"] == "w8"
    assert report["command"].startswith(f"edgemix deploy {file}")
    (folder / "deploy.toml").write_text(text.replace("size =", "sise ="))
    done = edgemix("deploy", "deploy.toml", "--force", cwd=folder)
    assert done.returncode == 2 and done.stdout == ""
    assert "error: deploy.toml:11: budget.sise: nothing has this name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("missing.toml",), "missing.toml cannot be read"),
        (("edgemix.models.demo:create", "--calibrate", "digits:train"), "there is no output folder\n  try: name it with --out"),
        (("edgemix.models.demo:create", "--out", "o"), "there is no data\n  try: name it with --calibrate"),
        (("edgemix.models.demo:create", "--out", "o", "--calibrate", "digits:train", "--device", "x"), "nobody here knows the device x"),
        (("edgemix.models.demo:create", "--out", "o", "--calibrate", "digits:train", "--labels", "bytes"), "bytes cannot be read: 'utf-8' codec"),
        (("unrolled.toml", "--step"), "--unroll and --step ask for different programs"),
        (("edgemix.models.demo:create", "--out", "o", "--calibrate", "digits:train", "--bits", "8"), "no widths of weights and activations: 8"),
    ],
)  # fmt: skip
def test_mistakes_on_the_command_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff")
    (tmp_path / "unrolled.toml").write_text(
        'out = "o"\n[model]\nsource = "m:f"\nunroll = true\n[data]\ncalibrate = "random:4"\n'
    )
    done = edgemix("deploy", *arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "o").exists()
