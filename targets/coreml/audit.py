"""A saved .mlpackage read back from disk: its operators and their types. Runs in a child."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgemix.targets.base import Arithmetic, OpPrecision
from edgemix.targets.coreml.package import open_package

_MOVES = frozenset(
    {
        "const", "cast", "reshape", "transpose", "slice_by_index", "split", "squeeze",
        "expand_dims", "concat", "stack", "identity", "quantize", "dequantize",
    }
)  # fmt: skip
_FLOAT16 = 10
"""``MILSpec.DataType.FLOAT16``."""


def audit(request: Mapping[str, Any]) -> dict[str, Any]:
    """Every computing operator of the package's main function.

    Core ML's integers live between a quantize and a dequantize; which unit computes them, and in
    which type, is decided on the device. So the best that a package can promise is floats of a
    width between integers.
    """
    between: Arithmetic = (
        "float between integers" if request["wide"] else "float16 between integers"
    )
    asked: Arithmetic = between if request["quantized"] else "float"
    block = list(_operations(Path(request["model"])))
    makers = {out.name: op for op in block for out in op.outputs}
    readers: dict[str, list[Any]] = {}
    for op in block:
        for name in _inputs(op):
            readers.setdefault(name, []).append(op)
    found = []
    for op in block:
        if op.type in _MOVES or op.type.startswith("constexpr"):
            continue
        achieved: Arithmetic = "float"
        if _from_integers(op, makers) and _to_integers(op, readers):
            kind = op.outputs[0].type.tensorType.dataType
            achieved = "float16 between integers" if kind == _FLOAT16 else "float between integers"
        if request["states"]:
            # Sixteen bits have no type there: floats lie on the states' grids, by design.
            asked = achieved = "float between integers"
        found.append(OpPrecision(op.type, op.outputs[0].name, asked, achieved))
    return {"ops": [asdict(op) for op in found]}


def operations(path: Path) -> dict[str, int]:
    """How many operators of each type the package holds, constants left out."""
    return dict(sorted(Counter(op.type for op in _operations(path) if op.type != "const").items()))


def constexpr_types(path: Path) -> dict[str, int]:
    """How many weights are stored compressed, by the operator that expands them."""
    kinds = operations(path)
    return {kind: n for kind, n in kinds.items() if kind.startswith("constexpr")}


def _operations(path: Path) -> Iterator[Any]:
    spec = open_package(path).spec
    function = spec.mlProgram.functions["main"]
    yield from function.block_specializations[function.opset].operations


def _inputs(op: Any) -> list[str]:
    return [a.name for argument in op.inputs.values() for a in argument.arguments if a.name]


def _from_integers(op: Any, makers: Mapping[str, Any]) -> bool:
    """Whether every operand comes out of a dequantize or of a constant."""
    for name in _inputs(op):
        maker = makers.get(name)
        if maker is None:
            return False
        constant = maker.type == "const" or maker.type.startswith("constexpr")
        if not constant and maker.type != "dequantize" and not _from_integers(maker, makers):
            return False
    return True


def _to_integers(op: Any, readers: Mapping[str, list[Any]]) -> bool:
    """Whether every result ends in a quantize, possibly a few operators later."""
    after = [r for out in op.outputs for r in readers.get(out.name, [])]
    return bool(after) and all(r.type == "quantize" or _to_integers(r, readers) for r in after)
