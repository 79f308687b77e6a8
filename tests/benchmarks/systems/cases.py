"""What the table has rows of: programs before any rewrite, with data to calibrate and to compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgemix.models import tiny
from edgemix.program import Origin, Program
from edgemix.streaming.trace import step_program
from tests.benchmarks.ptq.models import REFERENCES
from tests.benchmarks.ptq.suite import Task
from tests.benchmarks.systems import models

_STEPS = 100
_CALIBRATION, _COMPARED = 4, 2
_TRAINED = 64
"""Samples of the models that are trained, whose data cost less."""


@dataclass(frozen=True)
class Case:
    """One system."""

    program: Program
    calibration: Tensor
    samples: Tensor
    module: nn.Module | None
    """What a plain converter takes; None of a step, which no plain converter finds."""

    def expected(self, program: Program) -> tuple[Tensor, ...]:
        """What such a program gives; of a step, outputs and states after the last."""
        if program.states:
            found = program.rollout(self.samples)
            return (*found.outputs, *found.states)
        return program.run(self.samples)


STEPS = {factory.__name__: factory for factory in tiny.FACTORIES}


def names() -> tuple[str, ...]:
    """Of all systems: models of timm, trained models of this repository, models with states."""
    return (*models.TIMM, *REFERENCES, *STEPS)


def case(name: str) -> Case:
    """A system by name."""
    origin = Origin(name)
    if name in REFERENCES:
        task = Task.load(name)
        program = Program.trace(task.module, task.example, origin)
        held_out = task.samples[:_TRAINED]
        return Case(program, task.calibration[:_TRAINED], held_out, task.module)
    generator = torch.Generator().manual_seed(1)
    if name in STEPS:
        module, example = STEPS[name]()
        program = step_program(module, example, origin)
        x = torch.randn(2, 2, _STEPS, *program.inputs[0].shape[1:], generator=generator)
        return Case(program, x[0], x[1], None)
    module, (image,) = models.build(name)
    x = torch.randn(_CALIBRATION + _COMPARED, *image.shape[1:], generator=generator)
    program = Program.trace(module, (image,), origin)
    return Case(program, x[:_CALIBRATION], x[_CALIBRATION:], module)
