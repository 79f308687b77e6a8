"""What an algorithm did to a program's outputs, on calibration samples."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from edgemix.program import Program
from edgemix.quantize.draft import Draft

MEASURED = 128
"""Samples that effects are measured on, at most."""
OBSERVERS = "observers"


@dataclass(frozen=True)
class Effect:
    """What one algorithm did to the outputs on calibration samples."""

    algorithm: str
    seconds: float
    sqnr_db: float | None
    """After it; None where it was not measured, or the outputs are those of the float program."""
    kept: bool = True


def measurable(program: Program) -> bool:
    """Whether :class:`Yardstick` can measure a program: one input, and no memory."""
    return not program.states and len(program.inputs) == 1


class Yardstick:
    """The first output of a float program on some samples, which drafts of it should reach."""

    def __init__(self, draft: Draft, samples: Tensor) -> None:
        """Take any draft of the program, and samples [n, ...] of which the first 128 are used."""
        self._samples = samples[:MEASURED]
        with (simulation := draft.simulate()).only():
            self._expected = simulation.run(self._samples)

    def error(self, draft: Draft) -> float:
        """The squared error of a draft's outputs, summed."""
        found = draft.simulate().run(self._samples)
        return float((found - self._expected).double().square().sum())

    def db(self, error: float) -> float | None:
        """The SQNR that an error leaves; None for no error, and for outputs that are all zero."""
        signal = float(self._expected.double().square().sum())
        if error == 0.0 or signal == 0.0:
            return None
        return 10.0 * float(torch.log10(torch.tensor(signal / error, dtype=torch.float64)))
