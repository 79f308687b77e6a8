"""``edgemix prune`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgemix import cli, targets
from edgemix.errors import InputError
from edgemix.latency.estimator import house
from edgemix.order import Order, Silence
from edgemix.pipeline import deploy
from edgemix.program import Program
from edgemix.pruning import Asked, run
from edgemix.quantize.prune.recipe import Pruning
from tests.cli.command import edgemix

TRAIN, HELD_OUT = "digits:train", "digits:heldout"


@pytest.fixture
def model(tmp_path: Path, float_program: Program) -> Path:
    path = tmp_path / "demo.edgemix"
    float_program.save(path)
    return path


def test_a_program_a_report_and_a_page(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = edgemix(
        "prune", model, "--calibrate", TRAIN, "--evaluate", HELD_OUT, "--samples", 128,
        "--to", "70%", "--curve", "85%", "--device", "cortex-m7", "-o", out,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "70% of MACs (chosen)" in done.stdout and "cortex-m7, estimated" in done.stdout
    report = json.loads((out / "pruning.json").read_text())
    points = report["pruning"]["points"]
    assert [p["asked"] for p in points] == ["whole", "85% of MACs", "70% of MACs"]
    assert Program.load(out / "program.edgemix").parameters == points[2]["parameters"]
    assert points[2]["macs"] <= 0.7 * points[0]["macs"]
    page = (out / "pruning.html").read_text()
    assert "<polyline" in page and "chosen" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "half"], "no pruning budget: half"),
        (["--to", "1%"], "the budget cannot be met"),
        (["--to", "iphone99=1ms"], "nothing here counts iphone99"),
        (["--keep", "layers.9"], "no width matches layers.9"),
        (["--sparse", "5:4"], "'5:4' is no pattern of sparse weights"),
        (["--tokens", "80%"], "attention"),
        (["--branches", "99"], "99 residual branches cannot go"),
        (["--factors", "120%"], "120% leaves nothing, or more than there is"),
        (["--family", "--sparse", "2:4"], "a family is of widths alone"),
        (["--calibrate", "nowhere.npz"], "there is no data file nowhere.npz"),
    ],
)
def test_mistakes_end_in_a_message_and_leave_nothing(
    model: Path,
    tmp_path: Path,
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--calibrate", TRAIN] if "--calibrate" not in arguments else []
    out = tmp_path / "out"
    command = ["prune", model, "--samples", "32", *given, *arguments, "-q", "-o", out]
    monkeypatch.setattr("sys.argv", ["edgemix", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_what_came_quantized_is_refused(
    tmp_path: Path, quantized: object, float_program: Program
) -> None:
    assert callable(quantized)
    quantized("int8").save(tmp_path / "int8.edgemix")
    asked = Asked(str(tmp_path / "int8.edgemix"), tmp_path / "out", Pruning(), TRAIN, TRAIN)
    with pytest.raises(InputError, match="is quantized: its weights cannot be cut"):
        run(asked, house(), Silence())


def test_stages_follow_each_other(model: Path, tmp_path: Path) -> None:
    pruning = Pruning(branches=1, budget="80%", sparse="40%", finetune=1, curve=[])
    asked = Asked(str(model), tmp_path / "out", pruning, TRAIN, HELD_OUT, 128)
    points = run(asked, house(), Silence()).pruning.points
    assert [p.asked.split(",")[0].split(" ")[0] for p in points] == [
        "whole", "without", "80%", "sparse", "1",
    ]  # fmt: skip
    assert points[-1].chosen
    made = Program.load(tmp_path / "out" / "program.edgemix")
    zeros = sum(int((v == 0).sum()) for v in made.graph.state_dict.values() if v.ndim > 1)
    assert zeros > 0.2 * made.parameters  # training left them zero


def test_deploy_prunes_first_and_compares_with_the_whole_model(tmp_path: Path, model: Path) -> None:
    order = Order(
        str(model), ("onnx",), tmp_path / "out", HELD_OUT, TRAIN, samples=128,
        pruning=Pruning(budget="75%", curve=[]), max_drop=5.0,
    )  # fmt: skip
    report = deploy(order)
    assert report.pruning is not None
    whole, chosen = report.pruning.points
    assert report.model.parameters == chosen.parameters < whole.parameters
    assert report.evaluation.float_accuracy == pytest.approx(whole.accuracy, abs=0.01)
    assert "What was cut before" in (tmp_path / "out" / "report.html").read_text()
    assert targets.load("onnx").name in {t.name for t in report.targets}
