"""The matrix: which systems stand in it, and how cells become marks, lines and a page."""

from __future__ import annotations

import importlib
from dataclasses import replace

import pytest
import torch

from edgemix.errors import InputError
from edgemix.systems import matrix
from edgemix.systems.cases import built
from edgemix.systems.catalog import Slot, chosen, slots, systems
from edgemix.systems.cell import Cell
from edgemix.systems.page import render

FLOAT = Cell(
    "tiny/mamba", "onnx", "float", "float32", "ONNX Runtime", "≤ 0.0001 of the range", True,
    2e-7, 0.4, None, parameters=300, size=4000, seconds=3.0,
)  # fmt: skip


def test_every_row_has_a_factory_and_a_name_of_its_own() -> None:
    rows = systems()
    assert len({row.key for row in rows}) == len(rows)
    assert sum(row.group == "tiny" for row in rows) >= 24
    assert sum(row.group == "timm" for row in rows) >= 60
    for row in rows:
        place, _, name = row.source.partition(":")
        if place != "timm":
            assert callable(getattr(importlib.import_module(place), name)), row


def test_an_untrained_model_speaks_in_all_of_its_parts() -> None:
    (row,) = chosen(["fasternet_t0"])
    module, image = built(row)
    with torch.no_grad():
        y = module(torch.randn(2, *image.shape[1:], generator=torch.Generator().manual_seed(1)))
    # As timm makes it, outputs of both images agree to 1e-3 of their size, or to the bit.
    assert 0.01 < float(y.std()) < 100
    assert float((y[0] - y[1]).abs().max()) > 0.1 * float(y.abs().max())


def test_timms_names_are_timms() -> None:
    import timm

    known = set(timm.list_models())
    assert {
        r.source.removeprefix("timm:") for r in systems() if r.source.startswith("timm:")
    } <= known


def test_an_fpga_is_asked_for_no_floats_and_for_tiny_variants_alone() -> None:
    (tiny,) = chosen(["mamba"], ["tiny"])
    assert {s.kind for s in slots(tiny) if s.target == "rtl"} == {"integer", "step"}
    assert {s.recipe for s in slots(tiny) if s.target == "hls4ml"} == {"fixed8"}
    (large,) = chosen(["mobilevit_xxs"], ["timm"])
    assert {s.target for s in slots(large)} == {"onnx", "tflite", "coreml"}
    assert {s.kind for s in slots(large)} == {"float", "integer"}


def test_names_are_patterns_and_near_ones_are_told() -> None:
    assert {row.name for row in chosen(["mobilevit*"])} == {"mobilevit_xxs", "mobilevitv2_050"}
    with pytest.raises(InputError, match="there is no system pool_former") as caught:
        chosen(["pool_former"])
    assert "did you mean poolformer" in str(caught.value)
    with pytest.raises(InputError, match="there is no group large"):
        chosen([], ["large"])


@pytest.mark.parametrize(
    ("cell", "mark"),
    [
        (None, "?"),
        (FLOAT, "✓"),
        (replace(FLOAT, passed=False), "✗"),
        (replace(FLOAT, passed=False, strays=True), "~"),
        (replace(FLOAT, passed=False, refused="no such operator"), "–"),
    ],
)
def test_a_mark_says_what_was_found(cell: Cell | None, mark: str) -> None:
    assert matrix.mark(cell) == mark


def test_markdown_and_tally_count_every_kind() -> None:
    rows = chosen(["mamba"], ["tiny"])
    cells = [FLOAT, replace(FLOAT, kind="integer", passed=False, strays=True, within=0.9)]
    (found,) = matrix.matrices(rows, cells)
    assert (
        next(found.tally())
        == "ONNX: float 1 of 1, int8 0 of 1 (and 1 ~), float step 0 of 1, int8 step 0 of 1"
    )
    lines = list(matrix.markdown([found]))
    assert lines[0].startswith(
        "| Tier 1, tiny variants with a memory | ONNX: float, int8, float step, int8 step |"
    )
    assert lines[2] == "| Mamba | ✓ ~ ? ? | ? ? ? ? | ? ? ? ? | ? ? | ? ? |"


def test_the_page_shows_figures_and_escapes_what_tools_said() -> None:
    rows = chosen(["mamba"], ["tiny"])
    refused = replace(FLOAT, target="tflite", passed=False, refused="<script> & co")
    page = render(list(matrix.matrices(rows, [FLOAT, refused])))
    assert "2.0e-07 of the largest output" in page and "4 kB" in page
    assert "&lt;script&gt; &amp; co" in page and "<script>" not in page
    assert page.count('class="cell kept"') == 2  # the legend's, and the one that passed


def test_a_cell_survives_its_json() -> None:
    assert Cell.from_json(FLOAT.to_json()) == FLOAT
    assert FLOAT.slot == Slot("tiny/mamba", "onnx", "float")
