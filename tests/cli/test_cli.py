"""The command line as a user meets it: exit codes, messages, and nothing left behind."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import numpy as np
import pytest

from edgemix.cli.demo import SOURCE
from edgemix.report import schema
from tests.cli.command import edgemix

ROOT = Path(__file__).parents[2]

DEPLOY = ("deploy", SOURCE, "--calibrate", "digits:train", "--samples", "64")


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole deployment to ONNX, under a budget that holds."""
    folder = tmp_path_factory.mktemp("deploy") / "out"
    done = edgemix(
        *DEPLOY,
        "--evaluate",
        "digits:heldout",
        "--to",
        "onnx",
        "--out",
        folder,
        "--budget",
        "onnx=10s",
    )
    assert done.returncode == 0, done.stderr
    assert "report:" in done.stdout
    assert "Traceback" not in done.stderr
    return folder


def test_help_is_quick_and_lists_the_commands() -> None:
    times = []
    for _ in range(5):
        start = time.perf_counter()
        done = edgemix("--help")
        times.append(time.perf_counter() - start)
    assert done.returncode == 0
    for command in ("deploy", "compare", "export", "inspect", "validate", "measure", "synth"):
        assert command in done.stdout
    assert statistics.median(times) < 0.5, times


def test_importing_edgemix_loads_neither_torch_nor_numpy() -> None:
    code = "import edgemix, edgemix.cli.commands, sys; print([m for m in ('torch', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_two_deployments_are_compared_and_one_is_exported(deployed: Path, tmp_path: Path) -> None:
    done = edgemix("compare", deployed, deployed / "report.json")
    assert done.returncode == 0, done.stderr
    assert "program SQNR" in done.stdout and "+0.0 dB" in done.stdout
    found = json.loads(edgemix("compare", deployed, deployed, "--json").stdout)
    assert found["reports"] == ["int8", "int8"]
    none = edgemix("compare", deployed, tmp_path)
    assert none.returncode == 2
    assert "there is no report" in none.stderr and "Traceback" not in none.stderr
    path = tmp_path / "model.onnx"
    done = edgemix("export", deployed / "program.edgemix", path)
    assert done.returncode == 0, done.stderr
    assert "quantized tensors" in done.stdout
    again = edgemix("export", deployed / "program.edgemix", path)
    assert again.returncode == 2 and "is there already" in again.stderr
    odd = edgemix("export", deployed / "program.edgemix", tmp_path / "model.txt")
    assert odd.returncode == 2 and "is no .onnx file" in odd.stderr


def test_a_deployment_holds_report_and_evidence(deployed: Path) -> None:
    assert {p.name for p in deployed.iterdir()} == {
        "program.edgemix", "calibration.safetensors", "onnx", "report.json", "report.html",
    }  # fmt: skip
    report = schema.load(deployed / "report.json")
    assert report.passed
    assert report.left_float == ()
    assert {v.gate for v in report.targets[0].verdicts} == {
        "precision",
        "fidelity",
        "accuracy",
        "budget",
    }
    about = json.loads((deployed / "onnx" / "artifact.json").read_text())
    assert about["sha256"]["model.onnx"] == report.targets[0].files[0].sha256
    assert about["calibration"]["samples"] == 64
    assert about["environment"]["instruction sets"]


def test_firmware_says_which_knobs_it_could_not_turn(tmp_path: Path) -> None:
    done = edgemix(
        "deploy", "edgemix.models.jets:mlp", "--calibrate", "jet-features:train", "--evaluate",
        "random:40", "--samples", "64", "--recipe", "fixed8", "--to", "hls4ml", "--strategy",
        "resource", "--reuse", "7", "--layer", "6=strategy:distributed_arithmetic", "--out",
        tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    said = [line for line in done.stdout.splitlines() if line.startswith("hls4ml linear")]
    assert said == [
        "hls4ml linear: a matrix of 16 × 64 has no reuse factor 7, the nearest is 8",
        "hls4ml linear_1: a matrix of 64 × 32 has no reuse factor 7, the nearest is 8",
        "hls4ml linear_2: a matrix of 32 × 32 has no reuse factor 7, the nearest is 8",
        "hls4ml linear_3: distributed arithmetic has nothing to reuse 7 times",
    ]


def test_validate_replays_the_proof(deployed: Path) -> None:
    done = edgemix("validate", deployed / "onnx", "--json")
    assert done.returncode == 0, done.stderr
    gates = json.loads(done.stdout)
    assert [g["gate"] for g in gates] == ["hash", "hash", "fidelity"]
    assert all(g["passed"] for g in gates)


def test_validate_sees_a_changed_artifact(deployed: Path, tmp_path: Path) -> None:
    copy = tmp_path / "onnx"
    shutil.copytree(deployed / "onnx", copy)
    model = bytearray((copy / "model.onnx").read_bytes())
    model[-1] ^= 1
    (copy / "model.onnx").write_bytes(model)
    done = edgemix("validate", copy)
    assert done.returncode == 1
    assert "model.onnx is not what was proven" in done.stdout
    done = edgemix("validate", tmp_path)
    assert done.returncode == 2
    assert "holds no artifact of edgemix" in done.stderr
    (copy / "artifact.json").write_text("{")
    done = edgemix("validate", copy)
    assert done.returncode == 2
    assert "is damaged" in done.stderr


def test_a_missed_budget_fails_but_leaves_the_report(deployed: Path) -> None:
    done = edgemix(
        *DEPLOY, "--to", "onnx", "--out", deployed.parent / "late", "--budget", "onnx=1ns", "--json"
    )
    assert done.returncode == 1
    report = schema.Report.model_validate(json.loads(done.stdout))
    (missed,) = [v for v in report.targets[0].verdicts if not v.passed]
    assert (missed.gate, missed.asked) == ("budget", "≤ 1 ns")
    assert "times the budget" in missed.why
    assert schema.load(deployed.parent / "late" / "report.json") == report


def test_a_kept_calibration_is_used_again(deployed: Path) -> None:
    out = deployed.parent / "again"
    shutil.copytree(deployed, out)
    before = (out / "calibration.safetensors").read_bytes()
    (out / "stale").write_text("x")
    done = edgemix(*DEPLOY, "--to", "onnx", "--out", out, "--force", "--max-drop", "100")
    assert done.returncode == 0, done.stderr
    assert "calibrate on" not in done.stderr
    assert (out / "calibration.safetensors").read_bytes() == before
    assert not (out / "stale").exists()


def npz(path: Path, x: np.ndarray) -> Path:
    np.savez(path, x=x)
    return path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("timm:poolformer_s13",), "timm has no model poolformer_s13"),
        (("missing.pt2",), "there is no model missing.pt2"),
        (("text.txt",), "is neither an edgemix program nor a .pt2 file"),
        (("bad_factory:make",), "the factory bad_factory:make raised ValueError: broken"),
        ((SOURCE, "--to", "onx"), "there is no target onx\n  try: did you mean onnx?"),
        ((SOURCE, "--to", ","), "there is no target to deploy to"),
        ((SOURCE, "--to", "onnx", "--budget", "onnx=2parsecs"), "has no unit that edgemix knows: parsecs"),
        ((SOURCE, "--to", "onnx", "--budget", "tflite=2ms"), "for a target that is not being built"),
        ((SOURCE, "--to", "onnx", "--contract", "onnx=close"), "no contract: close"),
        ((SOURCE, "--recipe", "int7"), "there is no recipe int7"),
        ((SOURCE, "--calibrate", "nan.npz"), "sample 2 in nan.npz holds NaN or Inf"),
        ((SOURCE, "--calibrate", "shape.npz"), "give samples of shape (1, 8, 8)"),
        ((SOURCE, "--calibrate", "type.npz"), "are float64"),
        ((SOURCE, "--calibrate", "empty.npz"), "holds no samples"),
        ((SOURCE, "--calibrate", "none.npz"), "there is no data file none.npz"),
        ((SOURCE, "--to", "hls4ml"), "hls4ml: x: its scale"),
        ((SOURCE, "--out", "full"), "the output folder full is not empty\n  try: name another folder, or add --force"),
        ((SOURCE, "--out", "text.txt"), "the output text.txt is a file"),
        ((SOURCE, "--out", "text.txt/below"), "cannot be written"),
    ],
)  # fmt: skip
def test_bad_input_is_exit_2_a_message_and_nothing_left(
    arguments: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    x = np.zeros((4, 1, 8, 8), np.float32)
    bad = x.copy()
    bad[2, 0, 0, 0] = np.nan
    npz(tmp_path / "nan.npz", bad)
    npz(tmp_path / "shape.npz", x[:, :, :7])
    npz(tmp_path / "type.npz", x.astype(np.float64))
    npz(tmp_path / "empty.npz", x[:0])
    (tmp_path / "text.txt").write_text("hello")
    (tmp_path / "bad_factory.py").write_text("def make():\n    raise ValueError('broken')\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "keep").write_text("x")
    before = sorted(p.name for p in tmp_path.rglob("*") if "__pycache__" not in str(p))
    given = list(arguments)
    if "--out" not in given:
        given += ["--out", "out"]
    if "--calibrate" not in given:
        given += ["--calibrate", "digits:train"]
    done = edgemix("deploy", *given, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert sorted(p.name for p in tmp_path.rglob("*") if "__pycache__" not in str(p)) == before


def test_inspect_shows_the_model_and_what_targets_say() -> None:
    done = edgemix("inspect", SOURCE, "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["operators"]["conv2d"] == 8
    assert facts["inputs"][0]["shape"] == [1, 1, 8, 8]
    assert facts["targets"]["onnx"] == []
    assert "power of two" in facts["targets"]["hls4ml"][0]
    done = edgemix("inspect", SOURCE, "--recipe", "fixed8")
    assert "hls4ml: takes all of it with the recipe fixed8" in done.stdout


def test_doctor_names_the_command_for_what_is_missing() -> None:
    done = edgemix("doctor", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["g++"]["present"]
    assert rows["edgemix[onnx]"]["present"]
    assert rows["edgemix[onnx]"]["remedy"] == "pip install 'edgemix[onnx]'"
    assert rows["verilator"]["remedy"] == "apt-get install verilator"
    assert edgemix("doctor").returncode == 0
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = set(declared["optional-dependencies"]) - {"all", "test", "dev"}
    assert {name for name in rows if name.startswith("edgemix[")} == {
        f"edgemix[{e}]" for e in extras
    }


def test_a_missing_extra_names_the_command_that_installs_it(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['timm'] = None\n"
        "from edgemix.cli import main\n"
        "sys.argv = ['edgemix', 'inspect', 'timm:x']\nmain()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert (
        "needs the package timm, which is not installed\n  try: pip install 'edgemix[timm]'"
        in done.stderr
    )


TINY = "edgemix.models.tiny"


def test_a_model_with_a_memory_is_deployed_step_by_step(tmp_path: Path) -> None:
    done = edgemix(
        "deploy", f"{TINY}:lif", "--step", "--calibrate", "random:8", "--to", "onnx",
        "--recipe", "fixed8", "--stream", "200", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "at step 200" in done.stdout and "bounded" in done.stdout
    report = schema.load(tmp_path / "out" / "report.json")
    assert [s.name for s in report.model.states] == [s.state for s in report.states]
    assert {s.bits for s in report.states} == {16}
    (states,) = [v for v in report.targets[0].verdicts if v.gate == "states"]
    assert (states.asked, states.found, states.passed) == ("1 LSB at step 200", "0 LSB", True)
    again = edgemix("validate", tmp_path / "out" / "onnx")
    assert again.returncode == 0, again.stdout + again.stderr


def test_a_sequence_longer_than_what_was_calibrated_is_noted(tmp_path: Path) -> None:
    np.savez(tmp_path / "long.npz", x=np.random.default_rng(0).random((2, 90, 4), np.float32))
    done = edgemix(
        "deploy", f"{TINY}:gru", "--step", "--calibrate", "random:4", "--evaluate",
        tmp_path / "long.npz", "--to", "onnx", "--stream", "60", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "sequences of 90 steps were evaluated, ranges come from 60 steps" in done.stdout


def test_inspect_shows_states() -> None:
    done = edgemix("inspect", f"{TINY}:mamba", "--step", "--recipe", "fixed8")
    assert done.returncode == 0, done.stderr
    assert "state scan: 1 × 8 × 2 float32" in done.stdout
    for target in ("onnx", "tflite", "hls4ml", "rtl"):
        assert f"{target}: takes all of it" in done.stdout


def test_what_has_no_step_form_is_refused(tmp_path: Path) -> None:
    (tmp_path / "both.py").write_text(
        "import torch\n"
        "def make():\n"
        "    lstm = torch.nn.LSTM(3, 4, bidirectional=True, batch_first=True)\n"
        "    return lstm, torch.zeros(1, 8, 3)\n"
    )
    done = edgemix("inspect", "both:make", "--step", cwd=tmp_path)
    assert done.returncode == 2
    assert "reads its sequence from the end too" in done.stderr
    assert "Traceback" not in done.stderr
    done = edgemix("inspect", "timm:poolformer_s12", "--step")
    assert done.returncode == 2
    assert "its step form cannot be found" in done.stderr
