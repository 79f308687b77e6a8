"""One function per kind of operator: it appends the operator's layer and returns its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.hls4ml import tables
from edgemix.targets.hls4ml.firmware import Builder, Index, Value, channels_last, hls_shape
from edgemix.targets.hls4ml.precision import (
    exact_type,
    inner_product,
    plain_type,
    product_sum,
    raw_bounds,
    result_type,
)

Emit = Callable[[Builder, Node, Encoding, FixedPoint], Value]


def emitter(module: GraphModule, node: Node) -> Emit | None:
    """The function that writes a node's layer, or None where there is none."""
    if node.target in g.CONVOLUTION:
        return convolution if takes_convolution(node) else None
    if g.is_normalization(node):
        return normalization
    if tables.is_scalar_function(module, node):
        return scalar_function
    return EMITTERS.get(node.target)


_MERGES: dict[Any, str] = {
    aten.add.Tensor: "Add",
    aten.sub.Tensor: "Subtract",
    aten.mul.Tensor: "Multiply",
}


def takes_convolution(node: Node) -> bool:
    """A plain or a depthwise 2-D convolution, undilated, with explicit padding."""
    groups, channels = _argument(node, 6, 1), g.shape_of(node.args[1])[0]  # type: ignore[arg-type]
    depthwise = groups == channels == g.shape_of(node.args[0])[1]  # type: ignore[arg-type]
    return (
        node.target is aten.conv2d.default
        and (groups == 1 or depthwise)
        and set(_pair(node, 5, 1)) == {1}
        and not isinstance(_argument(node, 4, 0), str)
    )


def convolution(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Conv2D or DepthwiseConv2D of hls4ml, channels last."""
    x = b.canonical(b.operand(node.args[0]), f"{node.name}_input")
    weight = tables.constant_array(b.module, node.args[1])
    bias = _bias(b, node, len(weight))
    (sy, sx), (py, px) = _pair(node, 3, 1), _pair(node, 4, 0)
    depthwise = _argument(node, 6, 1) != 1
    _, channels, height, width = x.index.shape
    _, filters, out_height, out_width = g.shape_of(node)
    layer: dict[str, Any] = {
        "class_name": "DepthwiseConv2D" if depthwise else "Conv2D",
        "name": node.name, "inputs": [x.variable], "data_format": "channels_last",
        "in_height": height, "in_width": width, "n_chan": channels,
        "out_height": out_height, "out_width": out_width, "n_filt": filters,
        "filt_height": weight.shape[2], "filt_width": weight.shape[3],
        "stride_height": sy, "stride_width": sx, "padding": "same" if py or px else "valid",
        "pad_top": py, "pad_bottom": _pad_end(height, out_height, sy, weight.shape[2], py),
        "pad_left": px, "pad_right": _pad_end(width, out_width, sx, weight.shape[3], px),
        "bias_data": bias, "use_bias": True, "out_shape": [out_height, out_width, filters],
    }  # fmt: skip
    if depthwise:
        layer["depthwise_data"] = weight.transpose(2, 3, 0, 1)
        layer["depth_multiplier"] = 1
    else:
        layer["weight_data"] = weight.transpose(2, 3, 1, 0)
    b.firmware.add(layer, _types(x.fixed, weight.reshape(filters, -1), bias, fixed))
    b.firmware.multiply_accumulates += out_height * out_width * int(np.count_nonzero(weight))
    return Value(node.name, channels_last(g.shape_of(node)), encoding, fixed)


def linear(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Dense of hls4ml for one vector, a pointwise Conv1D for a row of them."""
    x = b.logical(b.operand(node.args[0]), f"{node.name}_input")
    weight = tables.constant_array(b.module, node.args[1])
    bias = _bias(b, node, len(weight))
    outputs, inputs = weight.shape
    rows = x.index.size // inputs
    shape = g.shape_of(node)
    common = {
        "name": node.name, "inputs": [x.variable], "weight_data": weight.T, "bias_data": bias,
        "use_bias": True, "out_shape": list(shape[1:]),
    }  # fmt: skip
    if rows == 1:
        layer = {"class_name": "Dense", "n_in": inputs, "n_out": outputs, **common}
    else:
        layer = {
            "class_name": "Conv1D", "data_format": "channels_last", "in_width": rows,
            "n_chan": inputs, "out_width": rows, "n_filt": outputs, "filt_width": 1,
            "stride_width": 1, "padding": "valid", "pad_left": 0, "pad_right": 0, **common,
            "weight_data": weight.T[None],
        }  # fmt: skip
    b.firmware.add(layer, _types(x.fixed, weight, bias, fixed))
    b.firmware.multiply_accumulates += rows * int(np.count_nonzero(weight))
    return Value(
        node.name, np.arange(x.index.size // inputs * outputs).reshape(shape), encoding, fixed
    )


def elementwise(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Add, Subtract or Multiply of hls4ml on two activations; broadcasting is wires."""
    shape = g.shape_of(node)
    operands = []
    for side, argument in zip(("a", "b"), node.args[:2], strict=True):
        value = b.operand(argument)
        index = np.broadcast_to(value.index, shape)
        value = Value(value.variable, index, value.encoding, value.fixed)
        operands.append(b.canonical(value, f"{node.name}_{side}"))
    kind = _MERGES[node.target]
    layer = {
        "class_name": "Merge", "name": node.name, "op": kind.lower(),
        "inputs": [v.variable for v in operands], "out_shape": list(hls_shape(shape)),
    }  # fmt: skip
    b.firmware.add(layer, {"result": result_type(fixed)})
    return Value(node.name, channels_last(shape), encoding, fixed)


def matmul(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Batched product of two activations."""
    left, right = (b.operand(a) for a in node.args[:2])
    batch = np.broadcast_shapes(left.index.shape[:-2], right.index.shape[:-2])
    rows, inner = left.index.shape[-2:]
    columns = right.index.shape[-1]
    pair = []
    for side, value in (("a", left), ("b", right)):
        index = np.broadcast_to(value.index, (*batch, *value.index.shape[-2:]))
        pair.append(
            b.logical(
                Value(value.variable, index, value.encoding, value.fixed), f"{node.name}_{side}"
            )
        )
    accumulator = inner_product(left.fixed, right.fixed, inner)
    sizes = {
        "n_batch": int(np.prod(batch)), "n_row": rows, "n_inner": inner, "n_column": columns,
    }  # fmt: skip
    constants = "".join(f"    static const unsigned {k} = {v};\n" for k, v in sizes.items())
    constants += f"    typedef {plain_type(accumulator)} accum_t;\n"
    shape = g.shape_of(node)
    b.custom(node.name, "matmul", pair, constants, shape[1:], {"result": result_type(fixed)})
    b.firmware.accumulators[node.name] = plain_type(accumulator)
    b.firmware.multiply_accumulates += int(np.prod(batch)) * rows * inner * columns
    return Value(node.name, np.arange(int(np.prod(shape))).reshape(shape), encoding, fixed)


def scalar_function(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """A table of the function's value for every input."""
    x = b.operand(next(n for n in node.all_input_nodes if not _is_constant(n)))
    entries = tables.table(b.module, node, x.encoding, encoding)
    listed = ", ".join(map(str, entries))
    constants = f"    static const int width = {fixed.width + 1};\n" + (
        "    static int value(unsigned i) {\n"
        f"        static const int values[] = {{{listed}}};\n        return values[i];\n    }}\n"
    )
    x = b.canonical(x, f"{node.name}_input")
    shape = g.shape_of(node)
    b.custom(node.name, "table", [x], constants, hls_shape(shape), {"result": result_type(fixed)})
    return Value(node.name, channels_last(shape), encoding, fixed)


def mean(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Means over windows or axes: an exact sum, one exact division."""
    x, sets = _windows(b, node)
    longest = max(len(s) for s in sets)
    up = max(0, fixed.fraction - x.fixed.fraction)
    down = max(0, x.fixed.fraction - fixed.fraction)
    peak = max(map(abs, raw_bounds(x.fixed))) * longest << up
    lowest, highest = raw_bounds(fixed)
    width = max(peak, longest << down, abs(lowest), highest).bit_length() + 2
    constants = _members(width=width, shift_up=up, shift_down=down, lowest=lowest, highest=highest)
    return _reduction(b, node, "mean", x, sets, constants, encoding, fixed)


def maximum(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Maxima over windows or axes."""
    x, sets = _windows(b, node)
    return _reduction(b, node, "max", x, sets, "", encoding, fixed)


def normalization(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """X / sum(x) along one axis: the quotient of two integers, rounded once."""
    x = b.operand(node.args[0])
    shape = x.index.shape
    axis = node.args[1].args[1][0]  # type: ignore[union-attr,index]
    last = np.moveaxis(x.index, axis, -1)  # type: ignore[arg-type]
    x = b.logical(Value(x.variable, last, x.encoding, x.fixed), f"{node.name}_input")
    length = last.shape[-1]
    up = fixed.fraction
    lowest, highest = raw_bounds(fixed)
    peak = max(map(abs, raw_bounds(x.fixed)))
    width = max(peak * length, peak << up, abs(lowest), highest).bit_length() + 2
    constants = _members(n_window=length, width=width, shift_up=up, lowest=lowest, highest=highest)
    b.custom(node.name, "normalize", [x], constants, last.shape[1:], {"result": result_type(fixed)})
    index = np.moveaxis(np.arange(last.size).reshape(last.shape), -1, axis).reshape(shape)  # type: ignore[arg-type]
    return Value(node.name, index, encoding, fixed)


EMITTERS: dict[Any, Emit] = {
    aten.linear.default: linear,
    aten.add.Tensor: elementwise,
    aten.sub.Tensor: elementwise,
    aten.mul.Tensor: elementwise,
    aten.matmul.default: matmul,
    aten.bmm.default: matmul,
    aten.mean.dim: mean,
    aten.avg_pool2d.default: mean,
    aten.adaptive_avg_pool2d.default: mean,
    aten.amax.default: maximum,
    aten.max_pool2d.default: maximum,
}


def _windows(b: Builder, node: Node) -> tuple[Value, list[Index]]:
    """The operand and, for every element of the result, which elements of it are reduced.

    Found by asking the operator itself: a mean of marked elements is not zero where they count.
    """
    x = b.canonical(b.operand(node.args[0]), f"{node.name}_input")
    size = x.index.size
    marks = torch.eye(size, dtype=torch.float64).reshape(size, *x.index.shape[1:])
    assert callable(node.target)
    response = node.target(marks, *node.args[1:], **node.kwargs).reshape(size, -1).numpy() > 0
    flat = x.index.ravel()
    return x, [flat[np.flatnonzero(column)] for column in response.T]


def _reduction(
    b: Builder,
    node: Node,
    function: str,
    x: Value,
    sets: list[Index],
    constants: str,
    encoding: Encoding,
    fixed: FixedPoint,
) -> Value:
    shape = g.shape_of(node)
    order = channels_last(shape)
    by_variable: list[Index] = [np.empty(0, np.int64)] * len(sets)
    for logical, element in enumerate(order.ravel()):
        by_variable[int(element)] = sets[logical]
    longest = max(len(s) for s in sets)
    padded = [int(v) for s in by_variable for v in [*s, *[s[0]] * (longest - len(s))]]
    counts = ", ".join(str(len(s)) for s in by_variable)
    constants += _members(n_window=longest) + (
        "    static int count(unsigned i) {\n"
        f"        static const int values[] = {{{counts}}};\n        return values[i];\n    }}\n"
        "    static int source(unsigned i, unsigned j) {\n"
        f"        static const int values[] = {{{', '.join(map(str, padded))}}};\n"
        "        return values[i * n_window + j];\n    }\n"
    )
    types = {"result": result_type(fixed)}
    b.custom(node.name, function, [x], constants, hls_shape(shape), types)
    return Value(node.name, order, encoding, fixed)


def _types(x: FixedPoint, weight: Any, bias: Any, result: FixedPoint) -> dict[str, str]:
    return {
        "weight": plain_type(exact_type(weight)),
        "bias": plain_type(exact_type(bias)),
        "accum": plain_type(product_sum(x, weight, bias)),
        "result": result_type(result),
    }


def _bias(b: Builder, node: Node, outputs: int) -> Any:
    if len(node.args) > 2 and node.args[2] is not None:
        return tables.constant_array(b.module, node.args[2])
    return np.zeros(outputs)


def _is_constant(node: Node) -> bool:
    return g.through_quantization(node).op == "get_attr"


def _members(**values: int) -> str:
    return "".join(f"    static const int {name} = {value};\n" for name, value in values.items())


def _argument(node: Node, position: int, default: Any) -> Any:
    return node.args[position] if len(node.args) > position else default


def _pair(node: Node, position: int, default: int) -> tuple[int, int]:
    value = _argument(node, position, default)
    if isinstance(value, int):
        return value, value
    first, second = value if len(value) == 2 else (value[0], value[0])
    return int(first), int(second)


def _pad_end(size: int, out: int, stride: int, kernel: int, start: int) -> int:
    return max(0, (out - 1) * stride + kernel - size - start)
