"""The report: its schema holds, its page is right, and a browser finds nothing to complain of."""

from __future__ import annotations

import json
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from edgemix.errors import InputError
from edgemix.report import comparison, schema
from edgemix.report.html import render

HOSTILE = "<script>throw new Error('planted')</script>"


def verdict(target: str, gate: str, passed: bool) -> dict[str, Any]:
    return {
        "gate": gate, "target": target, "asked": "≤ 2 ms", "found": "3 ms measured",
        "passed": passed, "why": "" if passed else "1.5 times the budget",
    }  # fmt: skip


def target(name: str, *, runs: bool, timed: bool, passed: bool = True) -> dict[str, Any]:
    fidelity = {
        "contract": "exact", "samples": 500, "identical": 1.0, "within": 1.0, "worst_lsb": 0, "worst_relative": 0.0,
        "sqnr_db": None, "decisions_equal": 1.0, "accuracy": 0.99, "program_accuracy": 0.99,
        "float_accuracy": 0.992, "passed": True, "why": "",
    }  # fmt: skip
    latency = {
        "kind": "measured", "device": "this host", "method": "run", "p50_ms": 0.036,
        "p90_ms": 0.041, "p99_ms": 0.07, "runs": 5000, "warmup": 20, "threads": 1,
        "environment": {"cpu": "test"},
    }  # fmt: skip
    return {
        "name": name, "title": name.upper(), "runtime": f"{name} runtime", "main": f"model.{name}",
        "size": 22_700, "files": [{"path": f"model.{name}", "bytes": 22_700, "sha256": "ab" * 32}],
        "toolchain": {"torch": "2"}, "facts": {"accumulators": {"conv": "ap_fixed<19,5>"}},
        "fidelity": fidelity if runs else None,
        "precision": [
            {"op": "Conv", "name": "c", "asked": "integer", "achieved": "integer", "kept": True},
            {"op": HOSTILE, "name": "s", "asked": "integer", "achieved": "float", "kept": False},
        ],
        "latency": latency if timed else None, "budget_ms": 2.0 if timed else None,
        "verdicts": [verdict(name, "budget", passed)], "replay": f"edgemix validate {name}",
    }  # fmt: skip


def document(*, passed: bool = True) -> dict[str, Any]:
    layers = [
        {
            "node": f"conv2d_{i}", "module": f"stages.{i}.{HOSTILE if i == 3 else 'mixer'}",
            "source": "attention.py:41", "op": "conv2d", "sqnr_db": None if i == 5 else 20.0 + i,
            "own_sqnr_db": None if i == 5 else 28.0 + i, "clipped": 0.01,
            "encoding": "int8, scale 0.5, zero point 0",
            "causes": ["3.0% of the values are clipped", HOSTILE] if i == 1 else [],
        }
        for i in range(12)
    ]  # fmt: skip
    tensor = {"name": "x", "shape": [1, 1, 8, 8], "dtype": "float32", "layout": "nchw"}
    return {
        "schema_version": 1, "edgemix": "0.1.0", "command": f"edgemix deploy {HOSTILE}",
        "model": {
            "source": "edgemix.models.demo:create", "licence": "", "digest": "cd" * 32,
            "inputs": [tensor], "outputs": [tensor], "states": [], "parameters": 3875,
            "macs": 63_000, "float_bytes": 15_500,
            "history": [{"name": "quantize", "options": {}, "seconds": 0.3}],
        },
        "recipe": {
            "name": HOSTILE if not passed else "fixed8", "algorithms": ["ranges", "bias"],
            "exceptions": [
                {"match": f"stages.{HOSTILE}", "regex": None, "op": None, "weights": 4,
                 "activations": None, "operands": 6, "leave_float": False},
                {"match": None, "regex": None, "op": "softmax", "weights": None,
                 "activations": None, "operands": None, "leave_float": True},
            ],
        },
        "effects": [
            {"algorithm": "observers", "seconds": 1.0, "sqnr_db": 20.0, "kept": True},
            {"algorithm": "ranges", "seconds": 35.2, "sqnr_db": 24.5, "kept": True},
            {"algorithm": "bias", "seconds": 2.0, "sqnr_db": 23.0, "kept": False},
            {"algorithm": HOSTILE, "seconds": 2.0, "sqnr_db": None, "kept": True},
        ],
        "calibration": {"source": "digits:train", "samples": 512, "shape": [1, 8, 8], "sha256": "ef" * 32},
        "evaluation": {
            "source": "digits:heldout", "samples": 500, "has_labels": True,
            "float_accuracy": 0.992, "program_accuracy": 0.99, "program_sqnr_db": 25.9,
        },
        "layers": layers, "left_float": [f"gelu (head, {HOSTILE})"],
        "states": [
            {
                "state": HOSTILE if i else "membrane", "bits": 16, "steps": [500, 1000],
                "error": [0.01, 0.25 * i], "bounded": not i,
            }
            for i in range(2)
        ],
        "warnings": [f"the error of {HOSTILE} grows"],
        "targets": [
            target("onnx", runs=True, timed=True, passed=passed),
            target("tflite", runs=True, timed=True), target("coreml", runs=False, timed=False),
            target("hls4ml", runs=True, timed=False),
        ],
        "environment": {"cpu": "test"}, "passed": passed,
    }  # fmt: skip


def made(*, passed: bool = True) -> schema.Report:
    return schema.Report.model_validate(document(passed=passed))


def test_it_survives_its_file(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    path.write_text(made().model_dump_json())
    assert schema.load(path) == made()
    path.write_text(path.read_text()[:-50])
    with pytest.raises(InputError, match="is no report of this schema, or it is damaged"):
        schema.load(path)
    with pytest.raises(InputError, match="there is no report"):
        schema.load(tmp_path / "none.json")


def test_unknown_fields_and_kinds_are_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        schema.Report.model_validate({**document(), "surprise": 1})
    changed = json.loads(json.dumps(document()))
    changed["targets"][0]["latency"]["kind"] = "guessed"
    with pytest.raises(ValidationError, match="measured"):
        schema.Report.model_validate(changed)


def test_the_page_says_what_was_found() -> None:
    page = render(made())
    for text in (
        "ONNX", "TFLITE", "COREML", "HLS4ML", "measured", "this machine cannot run it", "99.00%",
        "-0.2 points", "Every gate passed", "edgemix validate hls4ml", "36 µs", "22.7 kB", "exact",
        "budget 2 ms", "ap_fixed&lt;19,5&gt;", "24.5 dB (+4.5)", "23.0 dB (-1.5, not kept)",
        "ranges, 35.2 s", "3.0% of the values are clipped", "29.0 dB",
        "weights in 4 bits, operands in 6 bits", "left in float",
    ):  # fmt: skip
        assert text in page, text


def test_a_model_that_came_quantized_says_so() -> None:
    came = {**document(), "calibration": None, "recipe": {"name": "as it came"}, "effects": []}
    page = render(schema.Report.model_validate(came))
    assert "none: the model came quantized" in page
    assert "What the algorithms did" not in page
    assert "Layers with rules of their own" not in page


def test_two_reports_are_compared_figure_by_figure_and_layer_by_layer() -> None:
    other = json.loads(json.dumps(document()))
    other["recipe"] = {"name": "int8", "algorithms": []}
    other["evaluation"]["program_accuracy"] = 0.97
    other["layers"][2]["sqnr_db"] = 12.0
    other["layers"][5]["sqnr_db"] = 60.0
    other["targets"] = other["targets"][:1]
    found = comparison.compare(made(), schema.Report.model_validate(other))
    assert found["reports"] == ["fixed8 + 2 algorithms", "int8"]
    figures = {row["what"]: (row["first"], row["second"]) for row in found["figures"]}
    assert figures["program accuracy"] == ("99.00%", "97.00%")
    assert figures["tflite: size"] == ("22,700 bytes", "–")
    assert figures["onnx: latency"] == ("0.036 ms measured", "0.036 ms measured")
    first, second, *rest = found["layers"]
    # One that was exact counts as 150 dB.
    assert (first["node"], first["first"], first["second"]) == ("conv2d_5", None, 60.0)
    assert (second["node"], second["gain"]) == ("conv2d_2", -10.0)
    assert {row["gain"] for row in rest} == {0.0}
    other["model"]["source"] = "another"
    with pytest.raises(InputError, match="the reports are of different models"):
        comparison.compare(made(), schema.Report.model_validate(other))


def test_resources_are_drawn_against_the_part() -> None:
    assert "What it takes of the FPGA" not in render(made())
    changed = document()
    changed["targets"][3] |= {
        "facts": {"part": "xc7z020"},
        "resources": {
            "method": "Yosys, no place and route", "used": {"lut": 79_800, "ff": 53_200, "carry": 9},
            "available": {"lut": 53_200, "ff": 106_400},
        },
    }  # fmt: skip
    page = render(schema.Report.model_validate(changed))
    for text in (
        "HLS4ML: Yosys, no place and route; xc7z020", "79,800 of 53,200 (150.0%)",
        "53,200 of 106,400 (50.0%)",
    ):  # fmt: skip
        assert text in page, text
    assert 'class="worst" x="250" y="3" width="430.0"' in page  # no longer than the part
    assert 'class="bar" x="250" y="23" width="215.0"' in page
    assert "CARRY" not in page  # the part has no number for it


def test_a_failed_gate_is_said_first() -> None:
    page = render(made(passed=False))
    assert "1 gate failed" in page
    assert page.index("1.5 times the budget") < page.index("<table>")


def test_hostile_names_are_text_and_nothing_is_fetched() -> None:
    page = render(made())
    assert HOSTILE not in page
    assert "&lt;script&gt;throw new Error" in page
    assert re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page) == []
    assert "@import" not in page
    assert "url(" not in page


BROWSER = (
    "chromium", "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr", "--v=0",
)  # fmt: skip


def browse(page: Path, picture: Path, width: int) -> list[str]:
    """Open a page, take its picture, return what its console said."""
    done = subprocess.run(
        [
            *BROWSER, f"--user-data-dir={picture.parent / 'profile'}", f"--window-size={width},2600",
            f"--screenshot={picture}", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def size(picture: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", picture.read_bytes()[16:24])
    return width, height


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_shows_it_without_complaint(tmp_path: Path, width: int) -> None:
    page, picture = tmp_path / "report.html", tmp_path / "report.png"
    page.write_text(render(made()))
    assert browse(page, picture, width) == []
    assert size(picture) == (width, 2600)
    assert picture.stat().st_size > 50_000


def test_the_browser_check_can_fail(tmp_path: Path) -> None:
    page = tmp_path / "broken.html"
    page.write_text("<script>throw new Error('planted')</script>")
    (line,) = browse(page, tmp_path / "broken.png", 800)
    assert "planted" in line


def test_states_are_drawn_over_their_steps() -> None:
    page = render(made())
    assert "States over 1,000 steps without a reset" in page
    assert "1.00%, bounded" in page and "25.00%, grows" in page
    assert page.count('<polyline class="curve') == 2
    without = document()
    del without["states"], without["warnings"]
    assert "without a reset" not in render(schema.Report.model_validate(without))
