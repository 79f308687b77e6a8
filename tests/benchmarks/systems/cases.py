"""What the table has rows of: programs before any rewrite, with data to calibrate and to compare."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from edgemix.models import tiny
from edgemix.program import Origin, Program
from edgemix.streaming.trace import step_program
from edgemix.systems import cases
from edgemix.systems.catalog import TIMM, System
from tests.benchmarks.ptq.models import REFERENCES
from tests.benchmarks.ptq.suite import Task

_STEPS = 100
_TRAINED = 64
"""Samples of the models that are trained, whose data cost less."""


@dataclass(frozen=True)
class Case(cases.Case):
    """One system."""

    module: nn.Module | None
    """What a plain converter takes; None of a step, which no plain converter finds."""


STEPS = {factory.__name__: factory for factory in tiny.FACTORIES}


def names() -> tuple[str, ...]:
    """Of all systems: models of timm, trained models of this repository, models with states."""
    return (*TIMM, *REFERENCES, *STEPS)


def case(name: str) -> Case:
    """A system by name."""
    if name in REFERENCES:
        task = Task.load(name)
        program = Program.trace(task.module, task.example, Origin(name))
        held_out = task.samples[:_TRAINED]
        return Case(program, task.calibration[:_TRAINED], held_out, task.module)
    if name in STEPS:
        module, example = STEPS[name]()
        program = step_program(module, example, Origin(name))
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(2, 2, _STEPS, *program.inputs[0].shape[1:], generator=generator)
        return Case(program, x[0], x[1], None)
    whole, module = cases.whole(System(name, "timm", name, f"timm:{name}"))
    return Case(whole.program, whole.calibration, whole.samples, module)
