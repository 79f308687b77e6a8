"""Yosys's counts: of a real design, and of texts that it could print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemix import targets
from edgemix.errors import ToolError
from edgemix.program import Program
from edgemix.targets.base import Countable
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.rtl import cells

PART = "xczu7ev-ffvc1156-2-e"
STAT = """
=== model ===
   Number of cells:                 99
     $scopeinfo                      2
     CARRY8                         12
     DSP48E2                         4
     FDRE                          100
     LUT2                           11
     LUT6                           22
     MUXF7                           9
     RAMB36E2                        3
     SRL16E                          5
"""


def test_a_design_is_counted_and_fits_into_the_part(
    quantize_by: Callable[..., Program], program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    program = quantize_by(nn.Sequential(nn.Linear(3, 4), nn.GELU()), torch.randn(50, 3), "fixed8")
    target = targets.load("rtl", Hardware(PART, 4.0))
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    assert isinstance(target, Countable)
    found = target.resources(artifact, folder)
    assert found.method.startswith("Yosys 0.")
    assert found.method.endswith("no place and route")
    assert found.available["lut"] == 230_400
    # Four tables of 256 entries for eight bits are 4 · 8 · 4 LUT6 at most; the linear map adds some.
    assert 50 < found.used["lut"] < 600
    assert found.used["dsp"] == 0
    assert found.used["ff"] <= artifact.facts["register_bits"]
    assert found.used["ff"] >= artifact.facts["in_bits"]


def test_cells_become_resources() -> None:
    found = cells.read(STAT, PART, "Yosys 0.23")
    assert found.used == {
        "lut": 38, "ff": 100, "dsp": 4, "bram": 6, "uram": 0, "carry": 12,
    }  # fmt: skip
    assert found.share("dsp") == 4 / 1728
    assert found.share("carry") is None


def test_an_unknown_cell_is_an_error_not_a_zero() -> None:
    with pytest.raises(ToolError, match="a cell that edgemix does not know: MAGIC9"):
        cells.read(STAT + "     MAGIC9    3\n", PART, "Yosys 0.23")
    with pytest.raises(ToolError, match="list no cells"):
        cells.read("=== model ===\n", PART, "Yosys 0.23")
