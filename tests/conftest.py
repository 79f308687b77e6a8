"""What many tests need: the demo model as programs, made once a worker."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

# Two workers and their child processes share the cores; threads that wait for each other do not.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import data, rewrites
from edgemix.models.demo import create
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe


@pytest.fixture(scope="session")
def float_program() -> Program:
    """The demo model, traced."""
    module, example = create()
    return Program.trace(module, example, Origin("demo"))


@pytest.fixture(scope="session")
def quantized(float_program: Program) -> Callable[[str], Program]:
    """The demo model quantized by a recipe's name."""
    made: dict[str, Program] = {}

    def by_recipe(name: str) -> Program:
        if name not in made:
            recipe = Recipe.load(name)
            program = rewrites.standard(float_program, recipe.split)
            calibration = calibrate(program, data.digits("train").batches(64, 512))
            made[name] = quantize(program, calibration, recipe)
        return made[name]

    return by_recipe


@pytest.fixture(scope="session")
def held_out() -> data.Data:
    """The 500 digits that nothing was trained or calibrated on."""
    return data.digits("heldout")


@pytest.fixture
def program_file(tmp_path: Path) -> Callable[[Program], Path]:
    """Save a program and return its file."""

    def save(program: Program) -> Path:
        path = tmp_path / "program.edgemix"
        program.save(path)
        return path

    return save


def quantize_module(module: nn.Module, samples: Tensor, recipe: str, **changes: object) -> Program:
    """A module of one input, traced, rewritten, calibrated on ``samples`` and quantized."""
    chosen = Recipe.load(recipe).model_copy(update=changes)
    program = Program.trace(module, (samples[:1],), Origin("test"))
    program = rewrites.standard(program, chosen.split)
    return quantize(program, calibrate(program, [samples]), chosen)


@pytest.fixture(scope="session")
def quantize_by() -> Callable[..., Program]:
    """:func:`quantize_module`, for tests in folders below."""
    return quantize_module


@pytest.fixture
def generator() -> torch.Generator:
    """Seeded random numbers."""
    return torch.Generator().manual_seed(0)


@pytest.fixture
def digits_file(tmp_path: Path, held_out: data.Data) -> Path:
    """Twenty labelled digits as a .npz file."""
    path = tmp_path / "digits.npz"
    np.savez(path, x=held_out.samples[:20], y=held_out.labels[:20])
    return path
