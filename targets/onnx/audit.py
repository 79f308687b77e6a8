"""The kernels that ONNX Runtime really runs: its optimized graph, read back. Runs in a child."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemix.extras import need
from edgemix.targets.base import Arithmetic, OpPrecision
from edgemix.targets.onnx.run import session
from edgemix.targets.onnx.sparse import dense

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
        dense(graph)
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
    flow = _Flow.of(graph, readers)
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
        values = {n for n in node.input if n}
        before, after = values - flow.constant, set(node.output)
        if not before & flow.from_integers and not after & flow.to_integers:
            asked = "float"  # the recipe left it there, with its weights as integers or not
        between = values <= flow.from_integers and after <= flow.to_integers
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


@dataclass(frozen=True)
class _Flow:
    """Which values are constants, come from integers, and become integers."""

    constant: frozenset[str]
    from_integers: frozenset[str]
    """Made of integers alone, possibly through operators in between; all weights are."""
    to_integers: frozenset[str]
    """Every reader makes integers of them, possibly a few operators later."""

    @classmethod
    def of(cls, graph: Any, readers: Mapping[str, list[Any]]) -> _Flow:
        constant = {t.name for t in graph.initializer}
        integer, becoming = set(constant), set[str]()
        for node in graph.node:  # an ONNX graph is sorted
            values = {n for n in node.input if n}
            if values <= constant:
                constant.update(node.output)
            if node.op_type in ("DequantizeLinear", "QuantizeLinear") or values <= integer:
                integer.update(node.output)
        for node in reversed(graph.node):
            for name in node.output:
                after = readers.get(name, [])
                if after and all(
                    r.op_type == "QuantizeLinear" or becoming.issuperset(r.output) for r in after
                ):
                    becoming.add(name)
        return cls(frozenset(constant), frozenset(integer), frozenset(becoming))
