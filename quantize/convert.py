"""Write a recipe into a program's graph, as quantize and dequantize nodes."""

from __future__ import annotations

import time

from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from edgemix.errors import InputError
from edgemix.program import Program, quiet
from edgemix.quantize.annotate import Annotator, assign
from edgemix.quantize.calibrate import Calibration
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
    annotator = Annotator(assign(module, calibration, recipe, len(program.states)), recipe)
    with quiet():
        prepared = prepare_pt2e(module, annotator)
        module = convert_pt2e(prepared, fold_quantize=True)
    module.graph.eliminate_dead_code()
    options = {"recipe": recipe.model_dump(mode="json"), "calibration": calibration.data.sha256}
    return program.with_module(module, "quantize", options, time.perf_counter() - start)
