"""Estimates: sums of operators, with an interval and with what they rest on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from edgemix import rewrites, sources
from edgemix.cli import app, commands  # noqa: F401  (registers the commands)
from edgemix.errors import InputError
from edgemix.latency import device
from edgemix.latency.estimate import estimate
from edgemix.latency.fits import fits
from edgemix.program import Origin, Program
from tests.benchmarks.latency.__main__ import rows, scores
from tests.benchmarks.latency.fit import PRIORS, Row, by_costs, by_regression, fitted, unseen


def _model(width: int, size: int = 32) -> Program:
    layers = (nn.Conv2d(3, width, 3, 2, 1), nn.ReLU(), nn.Conv2d(width, width, 1), nn.GELU())
    return Program.trace(nn.Sequential(*layers), (torch.randn(1, 3, size, size),), Origin("test"))


def test_the_time_is_that_of_the_operators_and_of_starting() -> None:
    found = estimate(_model(32), device.load("iphone12"))
    start = fits()["coreml/iphone12"].costs[-1]
    assert found.latency.kind == "estimated"
    assert found.latency.p50_ms == pytest.approx(start + sum(t.ms for t in found.operators))
    assert found.low_ms < found.latency.p50_ms < found.high_ms


def test_more_work_takes_longer_and_a_faster_device_less() -> None:
    small, large = (estimate(_model(w), device.load("rpi4")) for w in (16, 64))
    assert small.latency.p50_ms < large.latency.p50_ms
    slow, fast = (estimate(_model(16), device.load(d)) for d in ("pixel6", "pixel7"))
    assert slow.latency.p50_ms == pytest.approx(1.018 * fast.latency.p50_ms)


def test_what_was_not_fitted_is_said() -> None:
    tiny = estimate(_model(4, 8), device.load("iphone12"))
    assert any("outside of what was fitted" in note for note in tiny.notes)
    assert any("longer" in n for n in estimate(_model(4), device.load("pixel6")).notes)


def test_a_device_without_such_a_target() -> None:
    with pytest.raises(InputError, match="no latency can be estimated for onnx on Apple iPhone 12"):
        estimate(_model(4), device.load("iphone12"), "onnx")
    with pytest.raises(InputError, match="on PYNQ-Z2"):
        estimate(_model(4), device.load("zynq7020"))


def test_costs_are_found_again_from_times_that_they_made() -> None:
    draw = np.random.default_rng(0)
    work = draw.uniform(0.1, 10, (200, 16))
    truth = PRIORS["xnnpack"] * np.exp(draw.normal(0, 0.2, 16))
    made = [Row("xnnpack-int8/x", str(i), str(i), float(w @ truth), w) for i, w in enumerate(work)]
    costs = fitted(made)["xnnpack-int8/x"]
    np.testing.assert_allclose(work @ costs, work @ truth, rtol=0.02)


def test_the_stored_accuracy_is_what_leaving_families_out_gives() -> None:
    own = [r for r in rows() if r.engine == "tensorrt-fp16"]
    stored = fits()["tensorrt-fp16/jetson-nano"].accuracy
    for name, learn in (("estimator", by_costs), ("regression", by_regression)):
        found = scores(unseen(own, ["tensorrt-fp16/jetson-nano"], learn))
        assert found["median_error"] == pytest.approx(stored[name].median_error, abs=0.005)
        assert found["rank_correlation"] == pytest.approx(stored[name].rank_correlation, abs=0.02)


@pytest.mark.parametrize("name", sorted(fits()))
def test_every_fit_beats_both_baselines(name: str) -> None:
    own = fits()[name].accuracy
    assert own["estimator"].median_error < own["regression"].median_error
    assert own["estimator"].median_error < own["multiplications"].median_error


def test_the_commands(tmp_path: Path) -> None:
    program = tmp_path / "model.edgemix"
    _model(32).save(program)
    run = CliRunner().invoke(
        app, ["estimate", str(program), "--device", "rpi4", "--json", "--budget", "1s"]
    )
    assert run.exit_code == 0, run.output
    told = json.loads(run.stdout)
    assert told["latency"]["kind"] == "estimated" and len(told["operators"]) == 4
    over = CliRunner().invoke(
        app, ["estimate", str(program), "--device", "rpi4", "--budget", "1us"]
    )
    assert over.exit_code == 1
    accuracy = CliRunner().invoke(app, ["devices", "rpi4", "--accuracy"])
    assert "ncnn/rpi4-4t" in accuracy.stdout
    listed = json.loads(CliRunner().invoke(app, ["devices", "--json"]).stdout)
    assert {d["name"] for d in listed} == set(device.names())


def test_what_a_profile_says_is_printed_as_it_stands(tmp_path: Path) -> None:
    own, program = tmp_path / "own.toml", tmp_path / "model.edgemix"
    _model(32).save(program)
    own.write_text(
        'title = "Board [/b]"\nkind = "board"\nchip = "[red]SoC"\n[[figures]]\nwhat = "[x]"\n'
        'value = 1\nunit = ""\nsource = "[/x]"\n[[runtimes]]\ntarget = "onnx"\nunit = "[/y]"\n'
        'precision = "float32"\nfit = "ncnn/rpi4-4t"\n'
    )
    shown = CliRunner().invoke(app, ["devices", str(own)]).stdout
    assert all(text in shown for text in ("Board [/b]: [red]SoC", "[x]", "[/x]", "[/y]"))
    told = CliRunner().invoke(app, ["estimate", str(program), "--device", str(own)]).stdout
    assert "Board [/b]" in told and "[/y], float32" in told


def test_what_others_report_of_the_very_model_is_told() -> None:
    program = rewrites.standard(sources.load("timm:efficientformer_l1"))
    found = estimate(program, device.load("iphone12"))
    assert {p.ms for p in found.published} == {1.5, 1.6}
    assert found.notes[0].startswith("1.5 ms reported by")
    smaller = rewrites.standard(sources.load("timm:mobilenetv3_small_050"))
    assert estimate(smaller, device.load("iphone12")).published == ()
