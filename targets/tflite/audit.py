"""The types in which a flatbuffer's operators run, read back from it. Runs in a child."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from edgemix.extras import need
from edgemix.targets.base import Arithmetic, OpPrecision

_CONVERSIONS = frozenset({"QUANTIZE", "DEQUANTIZE"})
BETWEEN: Mapping[str, frozenset[str]] = {
    "norms in float": frozenset(
        {
            "DEQUANTIZE", "MEAN", "SUM", "SUB", "ADD", "MUL", "DIV", "SQUARED_DIFFERENCE", "SQUARE",
            "RSQRT", "SQRT",
        }
    ),
    "linear operators in float": frozenset(
        {"DEQUANTIZE", "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD"}
    ),
    "attention in float": frozenset({"DEQUANTIZE", "BATCH_MATMUL", "SOFTMAX", "MUL", "ADD"}),
    "pools in float": frozenset({"DEQUANTIZE", "MUL", "AVERAGE_POOL_2D", "PAD", "DIV"}),
    "divisions in float": frozenset({"DEQUANTIZE", "MUL", "DIV"}),
    "hard gates in float": frozenset(
        {"DEQUANTIZE", "ADD", "MUL", "RELU6", "MINIMUM", "MAXIMUM"}
    ),
}  # fmt: skip
"""By a fact of the artifact: the operators that what has no integer kernel is written as, between
integers."""
_MOVES = frozenset(
    {
        "RESHAPE", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "SPLIT", "SQUEEZE", "EXPAND_DIMS",
        "BROADCAST_TO", "PAD", "PACK", "UNPACK", "CAST", "DELEGATE",
    }
)  # fmt: skip


def audit(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every computing operator of the model; a QUANTIZE from int8 to int8 computes, too."""
    litert = need("ai_edge_litert.interpreter", extra="tflite")
    resolver = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    runner = litert.Interpreter(request["model"], experimental_op_resolver_type=resolver)
    runner.allocate_tensors()
    types = {t["index"]: np.dtype(t["dtype"]) for t in runner.get_tensor_details()}
    names = {t["index"]: t["name"] for t in runner.get_tensor_details()}
    ends = (*runner.get_input_details(), *runner.get_output_details())
    borders = {t["index"] for t in ends if np.dtype(t["dtype"]).kind == "f"}
    between = {kind for fact in request["between"] for kind in BETWEEN[fact]}
    asked: Arithmetic = "integer" if request["quantized"] else "float"
    found = []
    for op in runner._get_ops_details():
        kind = op["op_name"]
        at_border = not borders.isdisjoint((*op["inputs"], *op["outputs"]))
        if kind in _MOVES or (kind in _CONVERSIONS and at_border):
            continue
        results = [types[i] for i in op["outputs"] if i in types]
        real = any(t.kind == "f" for t in results)
        if kind == "DEQUANTIZE" and real and not request["quantized"]:
            continue
        label = f"{kind} (conversion)" if kind in _CONVERSIONS else kind
        achieved: Arithmetic = "float" if real else "integer"
        if real and request["states"]:
            # Its islands apart, such a model computes in float between grids, by design.
            achieved = "float between integers"
        elif real and kind in between:
            achieved = "float between integers"
        own = achieved if achieved == "float between integers" else asked
        found.append(OpPrecision(label, names.get(op["outputs"][0], kind), own, achieved))
    return {"ops": [asdict(op) for op in found]}
