"""A quarter of a thousand calls of single operators: Core ML's and Core AI's artifacts against torch.

One module holds them all, so that a converter runs once. A converter that overlooks an argument
shows here as a difference of per cents; sums in another order as some 1e-7.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from edgemix import rewrites, targets
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from tests.targets.operators import EVERY, SHAPE, Calls

_NEAR = 2e-6
"""Of the largest value."""

REFUSED: dict[str, set[str]] = {"coreml": set(), "coreai": {"take_along_dim", "area"}}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("name", ["coreml", pytest.param("coreai", marks=pytest.mark.slow)])
def test_calls(name: str, program_file: Callable[[Program], Path], tmp_path: Path) -> None:
    names = tuple(n for n in EVERY if n not in REFUSED[name])
    module = Calls(names).eval()
    x = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module(x)
    traced = rewrites.standard(Program.trace(module, (x,), Origin("calls")))
    program = quantize(traced, calibrate(traced, [x]), Recipe.load("float32"))
    target = targets.load(name)
    assert target.supports(program) == ()
    artifact = target.lower(program, program_file(program), tmp_path)
    found = target.run(artifact, tmp_path, (x.numpy(),))
    assert found is not None
    wrong = {}
    for call, want, have in zip(names, expected, found, strict=True):
        if want.shape != have.shape:
            wrong[call] = f"{tuple(want.shape)} became {have.shape}"
            continue
        error = float((want - torch.from_numpy(have)).abs().max())
        if not error <= _NEAR * float(want.abs().max()):
            wrong[call] = f"{error / float(want.abs().max()):.1e}"
    assert wrong == {}
