"""From a row to programs, and to data for calibration and for comparison."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgemix.models.lively import enliven, see
from edgemix.program import Origin, Program
from edgemix.stray import followed
from edgemix.streaming.trace import step_program
from edgemix.systems.catalog import SMALL, System

_CALIBRATION = {"tiny": 64, "tier2": 64, "published": 4, "timm": 4}
_COMPARED = {"tiny": 16, "tier2": 16, "published": 2, "timm": 2}
"""Inputs of each: a large model gives a thousand outputs for one."""
_SEEN = 4
"""Inputs from which batch norms of large models take their statistics."""
_WHOLE = 8
"""Steps of a sequence that goes in at once: what is unrolled grows with them."""
_STEPS = 100
"""That a step's memory is carried through."""


@dataclass(frozen=True)
class Case:
    """A program before any rewrite, with its data."""

    program: Program
    calibration: Tensor
    samples: Tensor

    def expected(self, program: Program) -> tuple[Tensor, ...]:
        """What such a program gives; with states, outputs and states after every step."""
        return followed(program, self.samples)


class _Outputs(nn.Module):
    """A model that gives what it computed and what it remembers, without the latter."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        found = self.model(x)
        result: Tensor = found if isinstance(found, Tensor) else found[0]
        return result


def whole(system: System) -> tuple[Case, nn.Module]:
    """Whole inputs: pictures, or sequences of a few steps; and the model."""
    module, example = built(system)
    if system.memory:
        module, example = _Outputs(module).eval(), example[:, :_WHOLE]
    program = Program.trace(module, (example,), Origin(system.source))
    count = _CALIBRATION[system.group]
    x = _noise(count + _COMPARED[system.group], *example.shape[1:])
    return Case(program, x[:count], x[count:]), module


def step(system: System) -> Case:
    """One step, its memory as states; data are sequences."""
    module, example = built(system)
    program = step_program(module, example, Origin(system.source))
    x = _noise(4, _STEPS, *program.inputs[0].shape[1:])
    return Case(program, x[:2], x[2:])


def built(system: System) -> tuple[nn.Module, Tensor]:
    """The model with weights that make all of its parts count, and an example [1, ...]."""
    place, _, name = system.source.partition(":")
    if place == "timm":
        import timm

        torch.manual_seed(0)
        module: Any = timm.create_model(name)
        example = torch.zeros(1, *module.pretrained_cfg["input_size"])
    else:
        module, example = getattr(importlib.import_module(place), name)()
        example = example[0] if isinstance(example, tuple) else example
        if system.group in SMALL:
            return module, example
    enliven(module)
    see(module, torch.randn(_SEEN, *example.shape[1:]))
    return module, example


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))
