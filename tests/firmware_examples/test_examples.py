"""Every example, as its page says: ``make`` in its folder."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "firmware_examples"
NAMES = sorted(p.parent.name for p in ROOT.glob("*/Makefile"))
VERDICT = re.compile(
    "^(64 samples, 0 (outputs|bytes)"
    "|1000 steps, 0 outputs and 0 of 468000 state values"
    "|1000 steps of [0-9]+ clocks, outputs and states: 0 bytes) differ: bit-identical$",
    re.M,
)


def run_make(name: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """``make`` in a copy of what is committed."""
    example = folder / name
    if not example.exists():
        shutil.copytree(ROOT / name, example, ignore=shutil.ignore_patterns("build"))
    shutil.copy(ROOT / "unpack.py", folder)
    tools = [f"EDGEMIX={sys.executable} -m edgemix", f"PYTHON={sys.executable}"]
    command = ["make", "-C", str(example), *tools, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_all_are_there() -> None:
    assert NAMES == [
        "digits_metaformer", "jet_tagging_transformer", "keyword_stream", "pooling_mixer_stream",
    ]  # fmt: skip


LONG = {"jet_tagging_transformer", "keyword_stream", "pooling_mixer_stream"}
"""These take minutes; what they prove, smaller models prove in the tests of the targets."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in LONG else []) for n in NAMES]
)
def test_the_firmware_answers_as_committed_and_another_answer_is_found(
    name: str, tmp_path: Path
) -> None:
    done = run_make(name, tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert VERDICT.search(done.stdout)
    golden = tmp_path / name / "golden" / "golden_out.dat"
    if golden.exists():
        first, rest = golden.read_text().split(" ", 1)
        golden.write_text(f"{float(first) + 0.25:g} {rest}")
        done = run_make(name, tmp_path)
        assert done.returncode != 0
        assert "64 samples, 1 outputs differ: FAILED" in done.stdout


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["digits_metaformer", "jet_tagging_transformer", "keyword_stream"])
def test_the_verilog_answers_as_committed(name: str, tmp_path: Path) -> None:
    done = run_make(name, tmp_path, "rtl")
    assert done.returncode == 0, done.stderr[-2000:]
    assert VERDICT.search(done.stdout)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_names_the_vectors_that_are_there(name: str) -> None:
    page = (ROOT / name / "README.md").read_text()
    golden = {p.name for p in (ROOT / name / "golden").iterdir()}
    named = re.findall(r"`(?:golden/)?(\w+\.(?:dat|bin|npz))`", page)
    assert set(named) == golden
    assert len(page.splitlines()) < 60


def test_the_generator_knows_the_examples() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    assert sorted(e.name for e in module.EXAMPLES) == NAMES
