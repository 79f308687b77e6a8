"""Filling the matrix: what is kept, what goes on, and what a dead process costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from edgemix import child, rewrites
from edgemix.errors import InputError, ToolError
from edgemix.models import tiny_maps
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.stray import strayed
from edgemix.systems import run
from edgemix.systems.catalog import Slot, chosen, slots
from edgemix.systems.cell import Cell

(LINEAR,) = chosen(["linear_transformer"], ["tiny"])


def test_cells_are_measured_kept_and_not_measured_again(tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    wanted = [s for s in slots(LINEAR) if s.target == "onnx" and s.kind in ("integer", "step")]
    run.fill(results, wanted)
    cells = run.read(results)
    assert [c.slot for c in cells] == wanted
    assert all(c.passed and not c.refused for c in cells), cells
    assert all(c.runtime.startswith("ONNX Runtime") and c.size > 500 for c in cells)
    assert {c.parameters for c in cells} == {cells[0].parameters} and cells[0].parameters > 0
    left = run.missing(slots(LINEAR), cells)
    assert left == [s for s in slots(LINEAR) if s not in wanted]


def test_a_model_with_two_rows_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def answer(_function: str, request: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        found = [Slot(**s) for s in request["slots"]]
        asked.append([s.system for s in found])
        cells = [Cell(s.system, s.target, s.kind, s.recipe, passed=True) for s in found]
        lines = "".join(json.dumps(cell.to_json()) + "\n" for cell in cells)
        Path(request["lines"]).write_text(lines)
        return {}

    monkeypatch.setattr(child, "call", answer)
    rows = chosen(["poolformer", "poolformer_s12"], ["published", "timm"])
    wanted = [s for row in rows for s in slots(row) if s.target == "onnx"]
    run.fill(tmp_path / "results.json", wanted)
    assert asked == [["published/poolformer"] * 2]
    cells = run.read(tmp_path / "results.json")
    assert {c.slot for c in cells} == set(wanted) and len(cells) == 4
    assert run.missing(wanted, cells) == []


class Dying:
    """A child that writes one cell, then dies at the second; later children live."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, function: str, request: Mapping[str, Any], **_: Any) -> dict[str, Any]:
        found = [Slot(**s) for s in request["slots"]]
        self.asked.append([s.kind for s in found])
        first = len(self.asked) == 1
        with Path(request["lines"]).open("a") as lines:
            for slot in found[: 1 if first else None]:
                cell = Cell(slot.system, slot.target, slot.kind, slot.recipe, passed=True)
                lines.write(json.dumps(cell.to_json()) + "\n")
        if first:
            raise ToolError("a cell crashed (SIGKILL)")
        return {}


def test_a_process_that_dies_costs_the_cell_that_it_was_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dying = Dying()
    monkeypatch.setattr(child, "call", dying)
    told: list[Cell] = []
    results = tmp_path / "results.json"
    run.fill(results, [s for s in slots(LINEAR) if s.target == "onnx"], told=told.append)
    assert dying.asked == [["float", "integer", "float step", "step"], ["float step", "step"]]
    assert [(c.passed, "SIGKILL" in c.refused) for c in run.read(results)] == [
        (True, False), (False, True), (True, False), (True, False),
    ]  # fmt: skip
    assert len(told) == 4


def test_measuring_again_replaces_and_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results.json"
    old = [Cell(s.system, s.target, s.kind, s.recipe, refused="old") for s in slots(LINEAR)]
    results.write_text(json.dumps([c.to_json() for c in old]))
    dying = Dying()
    dying.asked.append([])  # so that none dies
    monkeypatch.setattr(child, "call", dying)
    run.fill(results, [s for s in slots(LINEAR) if s.target in ("rtl", "hls4ml")], jobs=2)
    found = {c.slot: c for c in run.read(results)}
    assert {s.target for s, c in found.items() if c.passed} == {"rtl", "hls4ml"}
    assert {s.target for s, c in found.items() if c.refused} == {"onnx", "tflite", "coreml"}
    assert list(found) == list(slots(LINEAR))  # in the matrix's order


@pytest.mark.parametrize("text", ["[", '{"cells": 1}', '[{"system": 1}]'])
def test_a_file_that_holds_no_results_is_refused_and_stays(text: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(text)
    with pytest.raises(InputError, match="holds no results"):
        run.fill(results, list(slots(LINEAR)))
    assert results.read_text() == text


def test_a_program_strays_from_itself_by_one_step_at_its_first_layer() -> None:
    module, example = tiny_maps.factory("pooling")
    program = rewrites.standard(Program.trace(module, example, Origin("pooling")))
    x = torch.randn(8, *example[0].shape[1:], generator=torch.Generator().manual_seed(0))
    coded = quantize(program, calibrate(program, [x]), Recipe.load("int8"))
    before, moved = coded.run(x)[0], strayed(coded, x)[0]
    assert moved.shape == before.shape and not torch.equal(moved, before)
    assert torch.equal(coded.run(x)[0], before)  # the program itself is as it was


def test_a_record_of_a_failure_keeps_the_last_line_of_the_tools_log() -> None:
    log = '  | Traceback\n  |   File "/home/ada/tool.py", line 3\n  | ValueError: no such rank'
    error = ToolError(f"the converter ended with exit code 70\n{log}", do="run `edgemix doctor`")
    assert error.reason == (
        "the converter ended with exit code 70; ValueError: no such rank; try: run `edgemix doctor`"
    )
    assert InputError("no such file", do="name another").reason == "no such file; try: name another"
