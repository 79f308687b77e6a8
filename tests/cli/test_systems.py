"""``edgemix systems`` as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cli.command import edgemix


def test_the_matrix_that_comes_with_the_package_is_shown_and_drawn(tmp_path: Path) -> None:
    page = tmp_path / "systems.html"
    done = edgemix("systems", "mamba", "mobilevit*", "--html", page)
    assert done.returncode == 0, done.stderr
    assert (
        "mamba" in done.stdout and "mobilevitv2_050" in done.stdout and "ONNX: float" in done.stdout
    )
    assert "Mamba" in page.read_text()


def test_json_gives_the_cells_alone() -> None:
    done = edgemix("systems", "mamba", "--group", "tiny", "--to", "onnx", "--json")
    cells = json.loads(done.stdout)
    assert {c["kind"] for c in cells} >= {"float step", "step"}
    assert {c["system"] for c in cells} == {"tiny/mamba"}


def test_mistakes_are_told(tmp_path: Path) -> None:
    done = edgemix("systems", "mambo")
    assert done.returncode == 2 and "did you mean mamba" in done.stderr
    done = edgemix("systems", "--to", "onx")
    assert done.returncode == 2 and "did you mean onnx" in done.stderr
    done = edgemix("systems", "--kinds", "steps")
    assert done.returncode == 2 and "kinds: float, integer, float step, step" in done.stderr
    (tmp_path / "results.json").write_text("{")
    done = edgemix("systems", "--results", tmp_path / "results.json")
    assert done.returncode == 2 and "holds no results" in done.stderr
    assert "Traceback" not in done.stderr
