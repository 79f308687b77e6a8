"""Cells of the design as Yosys maps it, without place and route. Runs in a child process."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemix.errors import InputError, ToolError
from edgemix.latency.resources import RESOURCES, Resources
from edgemix.targets.fpga.parts import part

_CELL = re.compile(r"^ +([A-Z][A-Z0-9_]+) +(\d+) *$")
_COUNTED = (
    (re.compile(r"LUT[1-6]|SRL16E?|SRLC32E|RAM\d+[XM].*"), "lut", 1),
    (re.compile(r"FD[CPRS]E(_1)?"), "ff", 1),
    (re.compile(r"DSP48E\d"), "dsp", 1),
    (re.compile(r"RAMB18E\d"), "bram", 1),
    (re.compile(r"RAMB36E\d"), "bram", 2),
    (re.compile(r"URAM288.*"), "uram", 1),
    (re.compile(r"CARRY[48]"), "carry", 1),
)
_FREE = re.compile(r"MUXF[789]|INV|BUFG|[IO]BUF|GND|VCC")
"""Parts of a slice that come with its LUTs, and what synthesis for a chip adds around it."""
_LINES = 5


def count(request: Mapping[str, Any]) -> dict[str, Any]:
    """Run ``make synth`` on a copy of the project; the answer is the Resources as JSON."""
    for tool in ("yosys", "make"):
        if shutil.which(tool) is None:
            raise InputError(f"counting cells needs {tool}", do="apt-get install yosys make")
    project = Path(request["project"])
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        copy = Path(scratch) / "project"
        shutil.copytree(project, copy, ignore=shutil.ignore_patterns("build"))
        made = subprocess.run(
            ["make", "-C", str(copy), "synth"], capture_output=True, text=True, check=False
        )
        if made.returncode != 0:
            said = (made.stdout + made.stderr).strip().splitlines()[-_LINES:]
            raise ToolError("Yosys cannot map the design\n" + "\n".join(said))
        text = (copy / "build" / "cells.txt").read_text()
    return asdict(read(text, request["part"], version()))


def read(text: str, part_name: str, tool: str) -> Resources:
    """What Yosys's ``stat`` printed, as counts of the part's resources.

    Raises:
        ToolError: it lists no cells, or one that is not known.
    """
    cells = {m[1]: int(m[2]) for m in map(_CELL.match, text.splitlines()) if m}
    if not cells:
        raise ToolError("Yosys's statistics list no cells")
    used = Counter(dict.fromkeys((*RESOURCES, "carry"), 0))
    for cell, number in cells.items():
        found = next((c for c in _COUNTED if c[0].fullmatch(cell)), None)
        if found is not None:
            used[found[1]] += found[2] * number
        elif _FREE.fullmatch(cell) is None:
            raise ToolError(f"Yosys used a cell that edgemix does not know: {cell}")
    return Resources(f"{tool}, no place and route", dict(used), dict(part(part_name).available))


def version() -> str:
    """``Yosys 0.23``."""
    said = subprocess.run(["yosys", "-V"], capture_output=True, text=True, check=True).stdout
    return " ".join(said.split()[:2])
