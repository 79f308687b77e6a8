"""Write a recipe into a program's graph, as quantize and dequantize nodes."""

from __future__ import annotations

import time

from edgemix.program import Program
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.draft import Draft
from edgemix.quantize.recipe import Recipe


def quantize(program: Program, calibration: Calibration, recipe: Recipe) -> Program:
    """The quantized program: the same class, weights as integers, activations between q and dq.

    The recipe's observers decide alone; :mod:`edgemix.quantize.quality` runs its algorithms.

    Raises:
        InputError: the calibration belongs to another program.
    """
    start = time.perf_counter()
    draft = Draft.start(program, calibration, recipe)
    return draft.finish(time.perf_counter() - start)
