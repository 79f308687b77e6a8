"""The kernels that ONNX Runtime really runs: its optimized graph, read back. Runs in a child."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemix.extras import need
from edgemix.targets.base import Arithmetic, OpPrecision
from edgemix.targets.onnx.run import session

_INTEGER_KERNELS = frozenset(
    {
        "AveragePool", "GlobalAveragePool", "Conv", "MatMul", "Gemm", "Add", "Mul", "Softmax",
        "Sigmoid", "LeakyRelu", "Concat",
    }
)  # fmt: skip
"""Operators that ONNX Runtime's CPU provider computes on integers. The others have no integer
kernel there: it computes them in float, between a dequantize and a quantize."""

_MOVES = frozenset(
    {
        "Reshape", "Transpose", "Gather", "Slice", "Squeeze", "Unsqueeze", "Flatten", "Expand",
        "Identity", "Split", "MaxPool", "NhwcMaxPool", "ReorderInput", "ReorderOutput", "Cast",
        "Concat",
    }
)  # fmt: skip
_BORDER = frozenset({"QuantizeLinear", "DequantizeLinear", "Constant"})


def audit(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every computing node of the optimized graph with the type it runs in."""
    onnx = need("onnx", extra="onnx")
    with tempfile.TemporaryDirectory(prefix="edgemix-") as scratch:
        path = Path(scratch) / "optimized.onnx"
        session(request["model"], optimized=path)
        graph = onnx.load(str(path)).graph
    wide = (onnx.TensorProto.INT16, onnx.TensorProto.UINT16)
    zeros = {t.name for t in graph.initializer if t.data_type in wide}
    sixteen = {
        name
        for node in graph.node
        if node.op_type == "QuantizeLinear"
        and (zeros & set(node.input) or any(a.i in wide for a in node.attribute))
        for name in node.output
    }
    return {"ops": [asdict(op) for op in _precisions(graph, sixteen)]}


def _precisions(graph: Any, sixteen: set[str]) -> list[OpPrecision]:
    """``sixteen``: integers of sixteen bits; what takes or gives such has no integer kernel."""
    makers = {name: node for node in graph.node for name in node.output}
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    weights = {t.name for t in graph.initializer}
    found = []
    for node in graph.node:
        if node.op_type in _BORDER | _MOVES:
            continue
        if node.op_type.startswith(("QLinear", "QGemm", "QAttention")) or "Integer" in node.op_type:
            name = node.op_type.removeprefix("QLinear").removeprefix("Q")
            found.append(OpPrecision(name, node.name, "integer", "integer"))
            continue
        could = (
            node.op_type in _INTEGER_KERNELS
            and _is_unit(node, makers, readers, weights)
            and not any(sixteen & set(makers[n].input) for n in node.input if n in makers)
            and not any(sixteen & set(r.output) for n in node.output for r in readers.get(n, []))
        )
        asked: Arithmetic = "integer" if could else "float between integers"
        if _is_real(node, makers, readers, weights):
            asked = "float"
        between = all(_dequantized(n, makers, weights) for n in node.input if n) and all(
            _quantized(n, readers) for n in node.output
        )
        achieved: Arithmetic = "float between integers" if between else "float"
        found.append(OpPrecision(node.op_type, node.name, asked, achieved))
    return found


def _is_unit(
    node: Any, makers: Mapping[str, Any], readers: Mapping[str, list[Any]], weights: set[str]
) -> bool:
    """Whether the node stands alone between dequantize and quantize, a clamp aside.

    Only such a unit can become an integer kernel; a node inside a decomposed composite, a group
    norm say, cannot.
    """
    return all(
        n in weights or (n in makers and makers[n].op_type == "DequantizeLinear")
        for n in node.input
        if n
    ) and all(
        r.op_type == "QuantizeLinear"
        or (
            r.op_type in ("Relu", "Clip")
            and all(q.op_type == "QuantizeLinear" for o in r.output for q in readers.get(o, []))
        )
        for out in node.output
        for r in readers.get(out, [])
    )


def _is_real(
    node: Any, makers: Mapping[str, Any], readers: Mapping[str, list[Any]], weights: set[str]
) -> bool:
    """Whether neither values that it reads nor its results are integers before or after it.

    The recipe left it in float, with its weights as integers or not.
    """
    values = [n for n in node.input if n and not _is_weight(n, makers, weights)]
    return not any(_dequantized(n, makers, weights) for n in values) and not any(
        _quantized(n, readers) for n in node.output
    )


def _is_weight(name: str, makers: Mapping[str, Any], weights: set[str]) -> bool:
    if name in weights:
        return True
    maker = makers.get(name)
    return maker is not None and all(_is_weight(n, makers, weights) for n in maker.input if n)


def _dequantized(name: str, makers: Mapping[str, Any], weights: set[str]) -> bool:
    """Whether a value comes from integers, possibly through operators in between."""
    if name in weights or name not in makers:
        return name in weights
    node = makers[name]
    if node.op_type == "DequantizeLinear":
        return True
    if node.op_type == "QuantizeLinear":
        return True
    return all(_dequantized(n, makers, weights) for n in node.input if n)


def _quantized(name: str, readers: Mapping[str, list[Any]]) -> bool:
    """Whether every reader of a value makes integers of it, possibly a few operators later."""
    after = readers.get(name, [])
    return bool(after) and all(
        n.op_type == "QuantizeLinear" or all(_quantized(o, readers) for o in n.output)
        for n in after
    )
