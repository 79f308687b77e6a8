"""Sources: what comes in, and what a mistake is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgemix import sources
from edgemix.errors import InputError
from edgemix.program import Program

FACTORIES = """
import torch
from torch import nn

def good():
    return nn.Linear(3, 2), torch.zeros(1, 3)

def raises():
    raise RuntimeError("no weights here")

def bare():
    return nn.Linear(3, 2)

def nothing():
    pass

def text():
    return nn.Linear(3, 2), "example"

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_a_factory_of_the_current_folder() -> None:
    program = sources.load("my_models:good")
    assert program.inputs[0].shape == (1, 3)
    assert program.origin.source == "my_models:good"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("my_models:raises", "the factory my_models:raises raised RuntimeError: no weights here"),
        ("my_models:bare", "returned a Linear\n  try: return .module, example."),
        ("my_models:nothing", "returned nothing"),
        ("my_models:text", "gave an example of a str"),
        ("my_models:number", "has no function number\n  try: it has"),
        ("my_models:gone", "has no function gone"),
        ("no_such_module:f", "cannot import no_such_module: ModuleNotFoundError"),
        ("no-such-file.pt2", "there is no model no-such-file.pt2\n  try: give timm:NAME"),
        (".", "is a folder"),
    ],
)
def test_mistakes(spec: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sources.load(spec)


def test_saved_programs_and_pt2_files(folder: Path, float_program: Program) -> None:
    float_program.save(folder / "saved")
    torch.export.save(float_program.graph, "model.pt2")
    for spec in ("saved", "model.pt2"):
        assert sources.load(spec).digest == float_program.digest
    (folder / "cut.pt2").write_bytes((folder / "model.pt2").read_bytes()[:5000])
    with pytest.raises(InputError, match=r"cut.pt2 is not a .pt2 file, or it is truncated"):
        sources.load("cut.pt2")
    (folder / "notes.txt").write_text("hello")
    with pytest.raises(InputError, match=r"is neither an edgemix program nor a .pt2 file"):
        sources.load("notes.txt")


def test_timm_models_by_name_with_keywords() -> None:
    program = sources.load("timm:poolformer_s12?in_chans=1&num_classes=7&input_size=64")
    assert program.inputs[0].shape == (1, 1, 64, 64)
    assert program.outputs[0].shape == (1, 7)
    assert program.origin.versions["timm"]


def test_unknown_timm_names_get_near_ones() -> None:
    with pytest.raises(
        InputError, match="timm has no model poolformer_s13\n  try: did you mean .*poolformer_s12"
    ):
        sources.load("timm:poolformer_s13")
    with pytest.raises(InputError, match="timm cannot build"):
        sources.load("timm:poolformer_s12?nonsense=3")
