"""The benchmarks' bars: each runs as a user runs it, and its rows are what is judged."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("fpga.py")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def rows(name: str, tmp_path: Path) -> list[dict[str, Any]]:
    """What a benchmark printed, as it saved it."""
    file = tmp_path / f"{name}.json"
    command = [sys.executable, str(SCRIPT), name, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def test_jets_are_tagged_in_time(tmp_path: Path) -> None:
    found = {row["model"]: row for row in rows("jets", tmp_path)}
    assert set(found) == {"transformer", "pooling", "linear_mixer", "mlp"}
    assert all(row["identical"] == 1 and row["interval"] == 1 for row in found.values())
    assert found["transformer"]["ns"] < 500
    assert found["pooling"]["ns"] <= 150
    assert found["linear_mixer"]["ns"] <= 150


def test_ours_is_never_worse_than_hls4mls_frontend(tmp_path: Path) -> None:
    found = {(row["flow"], row["rounding"], row["strategy"]): row for row in rows("mlp", tmp_path)}
    for strategy in ("latency", "resource"):
        ours = found["edgemix", "half to even", strategy]
        theirs = found["hls4ml's frontend", "half to even", strategy]
        assert ours["stages of 5 ns"] <= theirs["stages of 5 ns"], strategy
        for rounding in ("half up", "half to even"):
            theirs = found["hls4ml's frontend", rounding, strategy]
            assert ours["LUT"] <= theirs["LUT"], (strategy, rounding)


def test_every_evaluation_is_bit_exact(tmp_path: Path) -> None:
    found = rows("speed", tmp_path)
    assert len(found) == 7
    assert all(row["identical"] == 1 for row in found)
    compiled = [row for row in found if row["evaluation"] == "C simulation"]
    assert all(row["ready after s"] < 120 and row["samples/s"] > 100 for row in compiled)
