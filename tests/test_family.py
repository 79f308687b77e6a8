"""Families of widths: what members share, and which a budget affords."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from edgemix import family, rewrites, sources
from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.latency.budget import Budget
from edgemix.latency.estimator import house
from edgemix.order import Order, Silence
from edgemix.pipeline import deploy
from edgemix.program import Program
from edgemix.pruning import Asked, run
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.recipe import Pruning
from edgemix.quantize.recipe import Recipe

DATA = "digits:train"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, float_program: Program) -> Path:
    """The demo model in three nested widths."""
    out = tmp_path_factory.mktemp("family")
    float_program.save(out / "demo.edgemix")
    pruning = Pruning(budget="60%", importance="order", refit=False, curve=[0.4])
    run(
        Asked(str(out / "demo.edgemix"), out / "made", pruning, DATA, DATA, 64, family=True),
        house(), Silence(),
    )  # fmt: skip
    return out / "made"


def test_members_are_there_from_the_largest(folder: Path) -> None:
    found = family.members(folder)
    assert [m.name for m in found] == ["whole", "60% of MACs", "40% of MACs"]
    assert found[0].parameters > found[1].parameters > found[2].parameters


def test_weights_are_nested(folder: Path) -> None:
    whole, _, small = (Program.load(m.path) for m in family.members(folder))
    held = [
        {str(n.target): g.constant(m, n) for n in m.graph.find_nodes(op="get_attr") if n.users}
        for m in (whole.module(), small.module())
    ]
    assert held[0].keys() == held[1].keys()
    for name, value in held[1].items():
        assert torch.isin(value, held[0][name]).all(), name


def test_a_members_calibration_is_its_own(folder: Path) -> None:
    for member in family.members(folder):
        program = Program.load(member.path)
        calibration = Calibration.load(member.path.with_name(family.CALIBRATION))
        assert calibration.program == rewrites.standard(sources.load(str(member.path))).digest
        assert quantize(program, calibration, Recipe.load("int8")).quantized


def _choose(folder: Path, *budgets: str) -> str:
    devices = {"cortex-m7": house().device("cortex-m7")}
    read = [Budget.parse(text, ["tflite"], (), list(devices)) for text in budgets]
    recipe = Recipe.load("int8")
    return family.choose(folder, read, devices, recipe, ["tflite"], house()).name


def test_the_largest_that_is_afforded(folder: Path) -> None:
    assert _choose(folder) == "whole"
    assert _choose(folder, "size=4kB") != "whole"
    with pytest.raises(InputError, match=r"no member of .* meets the budgets: the smallest takes"):
        _choose(folder, "size=1B")
    with pytest.raises(InputError, match="on cortex-m7 by estimate"):
        _choose(folder, "cortex-m7=1ns")


def test_a_family_is_deployed_without_a_pass_over_the_data(folder: Path, tmp_path: Path) -> None:
    order = Order(
        str(folder), ("onnx",), tmp_path / "out", "digits:heldout", DATA, samples=64,
        evaluate_samples=20, budgets=("size=1MB",), max_drop=100.0,
    )  # fmt: skip
    report = deploy(order)
    member = family.members(folder)[0]
    inherited = Calibration.load(member.path.with_name(family.CALIBRATION))
    used = Calibration.load(tmp_path / "out" / "calibration.safetensors")
    assert report.model.parameters == member.parameters
    assert used.program == inherited.program
    assert used.data == inherited.data


def test_damaged_families_are_said(folder: Path, tmp_path: Path) -> None:
    (tmp_path / family.INDEX).write_text("[{}]")
    with pytest.raises(InputError, match="is damaged"):
        family.members(tmp_path)
    entries = json.loads((folder / family.INDEX).read_text())
    (tmp_path / family.INDEX).write_text(json.dumps(entries))
    with pytest.raises(InputError, match="there is no program"):
        family.members(tmp_path)
