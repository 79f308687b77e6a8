"""Write a recipe into a program's graph, as quantize and dequantize nodes."""

from __future__ import annotations

import time

from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.insert import coded
from edgemix.quantize.plan import assign
from edgemix.quantize.recipe import Recipe


def quantize(program: Program, calibration: Calibration, recipe: Recipe) -> Program:
    """The quantized program: the same class, weights as integers, activations between q and dq.

    Raises:
        InputError: the calibration belongs to another program.
    """
    if calibration.program != program.digest:
        raise InputError(
            "the calibration belongs to another program",
            do="calibrate this program, or remove the file",
        )
    start = time.perf_counter()
    module = program.module()
    coded(module, assign(module, calibration, recipe, len(program.states)))
    options = {"recipe": recipe.model_dump(mode="json"), "calibration": calibration.data.sha256}
    return program.with_module(module, "quantize", options, time.perf_counter() - start)
