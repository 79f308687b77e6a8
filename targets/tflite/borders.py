"""Real numbers at a model's border: a QUANTIZE in front of it, a DEQUANTIZE behind."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from edgemix.extras import need


def real_borders(path: Path) -> None:
    """Give a full-integer ``.tflite`` real inputs and outputs of the same names, in place.

    The converter folds the quantize nodes at the border into the interface, whatever the program
    has there.
    """
    schema = need("ai_edge_litert.schema_py_generated", extra="tflite")
    flatbuffers = need("flatbuffers", extra="tflite")
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(path.read_bytes(), 0))
    (graph,) = model.subgraphs
    quantize = _code(schema, model, schema.BuiltinOperator.QUANTIZE)
    dequantize = _code(schema, model, schema.BuiltinOperator.DEQUANTIZE)
    real: dict[int, int] = {}
    for index in (*graph.inputs, *graph.outputs):
        if graph.tensors[index].type == schema.TensorType.INT8 and index not in real:
            real[int(index)] = _real(schema, graph, int(index))
    before = [_operator(schema, quantize, real[i], i) for i in graph.inputs if i in real]
    after = [_operator(schema, dequantize, i, real[i]) for i in graph.outputs if i in real]
    graph.operators = [*before, *graph.operators, *after]
    graph.inputs = [real.get(int(i), int(i)) for i in graph.inputs]
    graph.outputs = [real.get(int(i), int(i)) for i in graph.outputs]
    for signature in model.signatureDefs:
        for named in (*signature.inputs, *signature.outputs):
            named.tensorIndex = real.get(named.tensorIndex, named.tensorIndex)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def _code(schema: Any, model: Any, operator: int) -> int:
    """The place of an operator in the model's list, added where it is missing."""
    for i, code in enumerate(model.operatorCodes):
        if code.builtinCode == operator and code.version >= 1:
            return i
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = operator
    code.version = 2  # the first with int8
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _real(schema: Any, graph: Any, index: int) -> int:
    """A float tensor of a tensor's shape; it takes over the name."""
    tensor = copy.copy(graph.tensors[index])
    graph.tensors[index].name = tensor.name + b"_integers"
    tensor.type, tensor.quantization, tensor.buffer = schema.TensorType.FLOAT32, None, 0
    graph.tensors.append(tensor)
    return len(graph.tensors) - 1


def _operator(schema: Any, code: int, source: int, result: int) -> Any:
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = code, [source], [result]
    return operator
