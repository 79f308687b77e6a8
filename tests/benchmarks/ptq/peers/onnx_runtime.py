"""onnxruntime's ``quantize_static``: QDQ, per-channel weights, three ways to find ranges."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantType
from onnxruntime.quantization import quantize_static as quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from torch import Tensor, nn

from tests.benchmarks.ptq.peers import Bits, Made, Refused

_SETTINGS: dict[str, tuple[CalibrationMethod, list[str] | None]] = {
    "convolutions and products, min-max": (CalibrationMethod.MinMax, ["Conv", "MatMul", "Gemm"]),
    "convolutions and products, percentile": (
        CalibrationMethod.Percentile,
        ["Conv", "MatMul", "Gemm"],
    ),
    "all it knows, min-max": (CalibrationMethod.MinMax, None),
    "all it knows, percentile": (CalibrationMethod.Percentile, None),
    "all it knows, entropy": (CalibrationMethod.Entropy, None),
}


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, x: Tensor) -> None:
        self._samples: Iterator[dict[str, Any]] = iter([{"x": s[None].numpy()} for s in x])

    def get_next(self) -> Any:
        return next(self._samples, None)


def quantize(model: nn.Module, calibration: Tensor, bits: Bits) -> list[Made]:
    """Every setting; only eight bits, or four-bit weights of products."""
    if bits != (8, 8):
        raise Refused("integers of 8 bits only")
    folder = Path(tempfile.mkdtemp())
    torch.onnx.export(
        model, (calibration[:1],), str(folder / "float.onnx"), input_names=["x"],
        dynamo=True, verbose=False,
    )  # fmt: skip
    quant_pre_process(str(folder / "float.onnx"), str(folder / "ready.onnx"))
    return [_one(folder, name, calibration) for name in _SETTINGS]


def _one(folder: Path, name: str, calibration: Tensor) -> Made:
    method, operators = _SETTINGS[name]
    quantize_static(
        str(folder / "ready.onnx"), str(folder / "int8.onnx"), _Reader(calibration),
        per_channel=True, calibrate_method=method, op_types_to_quantize=operators,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    session = ort.InferenceSession(str(folder / "int8.onnx"))

    def run(x: Tensor) -> Tensor:
        found = [session.run(None, {"x": s[None].numpy()})[0] for s in x]
        return torch.from_numpy(np.concatenate(found))

    every = operators is None
    what = "all operator types it knows" if every else "convolutions and matrix products"
    return Made(run, what, every, name)
