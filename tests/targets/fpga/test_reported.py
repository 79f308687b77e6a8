"""``edgemix measure --on vivado``: what a project's reports say, as a latency."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgemix import files
from edgemix.errors import InputError
from edgemix.measuring import Asked, measure
from edgemix.targets.base import Artifact


def artifact(folder: Path, target: str = "hls4ml") -> Path:
    """A target's folder with as much in it as reading it takes."""
    firmware = folder / "project" / "firmware"
    firmware.mkdir(parents=True)
    (firmware / "firmware.cpp").write_text("// config2")
    facts = {"part": "xc7z020clg400-1", "clock_ns": 10.0, "backend": "Vivado"}
    made = Artifact(target, "digest", "project", (), (), {}, facts)
    files.write_json(folder / "artifact.json", {"format": 1, "artifact": made.to_json()})
    np.savez(folder / "vectors.npz", inputs=np.zeros(1), expected=np.zeros(1))
    return folder


def asked(folder: Path, on: str = "vivado", limit: str | None = None) -> Asked:
    return Asked(folder, on, limit)


def ignore(_: float) -> None: ...


@pytest.fixture
def reports(tmp_path: Path, csynth_report: Callable[..., str]) -> Path:
    folder = tmp_path / "reports"
    folder.mkdir()
    (folder / "firmware_csynth.rpt").write_text(csynth_report())
    return folder


def test_reports_are_a_latency_of_their_own_kind(tmp_path: Path, reports: Path) -> None:
    folder = artifact(tmp_path / "hls4ml")
    found = measure(asked(folder, f"vivado:{reports}", "200ns"), ignore)
    (latency,) = found.latencies
    assert (latency.kind, latency.p50_ms) == ("reported", pytest.approx(23 * 10e-6))
    assert "C synthesis: at most 23 cycles" in latency.method
    assert [v.passed for v in found.verdicts] == [False]
    assert found.verdicts[0].found == "230 ns reported"


def test_the_folder_of_synthesis_is_the_default(tmp_path: Path, reports: Path) -> None:
    folder = artifact(tmp_path / "hls4ml")
    with pytest.raises(InputError, match="no folder of reports .*synthesis") as error:
        measure(asked(folder), ignore)
    assert error.value.do == "run `edgemix synth`, or name it: vivado:FOLDER"
    reports.rename(folder / "synthesis")
    assert measure(asked(folder, limit="1us"), ignore).verdicts[0].passed


def test_other_artifacts_have_no_reports(tmp_path: Path) -> None:
    folder = artifact(tmp_path / "rtl", "rtl")
    with pytest.raises(InputError, match="holds an artifact for rtl, not for Vivado"):
        measure(asked(folder), ignore)
    with pytest.raises(InputError, match="no runtime is known for project"):
        measure(asked(folder, "host"), ignore)


def test_cycles_that_depend_on_data_are_no_latency(
    tmp_path: Path, reports: Path, csynth_report: Callable[..., str]
) -> None:
    (reports / "firmware_csynth.rpt").write_text(csynth_report(cycles=("?", "?")))
    folder = artifact(tmp_path / "hls4ml")
    with pytest.raises(InputError, match="tell no latency: it depends on the data"):
        measure(asked(folder, f"vivado:{reports}"), ignore)
