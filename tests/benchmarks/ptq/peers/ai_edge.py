"""ai-edge-quantizer on the float .tflite: full integer, the maker's own recipe."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_quantizer import quantizer, recipe
from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Eight bits for everything, min-max."""
    if bits not in ((8, 8), (4, 8)):
        raise Refused("weights of 8 or 4 bits, activations of 8")
    folder = Path(tempfile.mkdtemp())
    litert_torch.convert(model, (calibration[:1],)).export(str(folder / "float.tflite"))
    plan = recipe.static_wi8_ai8() if bits == (8, 8) else recipe.static_wi4_ai8()
    work = quantizer.Quantizer(str(folder / "float.tflite"), plan)
    found = work.calibrate({"serving_default": [{"args_0": s[None].numpy()} for s in calibration]})
    path = folder / "int8.tflite"
    work.quantize(found).export_model(str(path))
    interpreter = Interpreter(str(path))
    interpreter.allocate_tensors()
    runner = interpreter.get_signature_runner()

    def run(x: Tensor) -> Tensor:
        return torch.from_numpy(np.concatenate([_one(runner, s[None].numpy()) for s in x]))

    return [Made(run, "every operator", True, "min-max")]


def _one(runner: Any, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    (takes,), (gives,) = runner.get_input_details().items(), runner.get_output_details().items()
    scale, zero = takes[1]["quantization"]
    if takes[1]["dtype"] == np.int8:
        x = np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8)
    found = runner(**{takes[0]: x})[gives[0]]
    scale, zero = gives[1]["quantization"]
    return (found.astype(np.float32) - zero) * scale if found.dtype == np.int8 else found
