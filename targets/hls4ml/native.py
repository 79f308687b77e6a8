"""Operators that hls4ml has layers of its own for: convolutions, linear maps, merges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.fx import Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga import tables
from edgemix.targets.fpga.dataflow import argument, pair
from edgemix.targets.fpga.precision import exact_type, plain_type, product_sum, result_type
from edgemix.targets.hls4ml.firmware import Builder, Value, channels_last

Floats = np.ndarray[Any, np.dtype[np.float64]]

_MERGES: dict[Any, str] = {
    aten.add.Tensor: "Add",
    aten.sub.Tensor: "Subtract",
    aten.mul.Tensor: "Multiply",
}


def takes_convolution(node: Node) -> bool:
    """A convolution of one image that is undilated, with explicit padding."""
    if g.shape_of(node)[0] != 1:
        return False
    return not isinstance(argument(node, 4, 0), str) and set(pair(node, 5, 1)) == {1}


def _is_depthwise(node: Node) -> bool:
    groups, filters = argument(node, 6, 1), g.shape_of(node.args[1])[0]  # type: ignore[arg-type]
    channels: int = g.shape_of(node.args[0])[1]  # type: ignore[arg-type]
    return bool(groups == filters == channels != 1)


def _over_all_channels(weight: Floats, groups: int) -> Floats:
    """The weights of the same convolution in one group: zeros for what other groups read."""
    filters, size = len(weight) // groups, weight.shape[1]
    whole = np.zeros((len(weight), groups * size, *weight.shape[2:]))
    for i in range(groups):
        own = slice(i * filters, (i + 1) * filters)
        whole[own, i * size : (i + 1) * size] = weight[own]
    return whole


def convolution(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Conv2D or DepthwiseConv2D of hls4ml, channels last; one dimension is an image of one row."""
    given = b.operand(node.args[0])
    weight = tables.constant_array(b.module, node.args[1])
    bias = _bias(b, node, len(weight))
    shape = g.shape_of(node)
    if not (depthwise := _is_depthwise(node)):
        weight = _over_all_channels(weight, argument(node, 6, 1))  # hls4ml knows no groups
    (sy, sx), (py, px) = pair(node, 3, 1), pair(node, 4, 0)
    if len(shape) == 3:
        given = given.indexed(given.index[:, :, None, :])
        weight, shape = weight[:, :, None, :], (*shape[:2], 1, shape[2])
        sy, py = 1, 0
    x = b.canonical(given, f"{node.name}_input")
    sweep = Sweep((sy, sx), (py, px), shape, depthwise=depthwise)
    add_convolution(b, node.name, x, weight, bias, sweep, fixed)
    order = channels_last(shape).reshape(g.shape_of(node))
    return Value(node.name, order, encoding, fixed)


@dataclass(frozen=True)
class Sweep:
    """How a window moves over an image: (height, width) of stride and padding."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    shape: tuple[int, ...]
    """[1, filters, height, width] of the result."""
    depthwise: bool


def add_convolution(
    b: Builder, name: str, x: Value, weight: Floats, bias: Floats, sweep: Sweep, fixed: FixedPoint
) -> None:
    """Append a convolution; ``weight`` is [filters, channels of a group, height, width]."""
    _, filters, out_height, out_width = sweep.shape
    layer: dict[str, Any] = {
        "class_name": "DepthwiseConv2D" if sweep.depthwise else "Conv2D", "name": name,
        **geometry(x, sweep, weight.shape[2:]), "bias_data": bias, "use_bias": True,
        "filt_height": weight.shape[2], "filt_width": weight.shape[3],
    }  # fmt: skip
    if sweep.depthwise:
        layer["depthwise_data"] = weight.transpose(2, 3, 0, 1)
        layer["depth_multiplier"] = 1
    else:
        layer["weight_data"] = weight.transpose(2, 3, 1, 0)
    b.firmware.add(layer, _types(x.fixed, weight.reshape(filters, -1), bias, fixed))
    b.firmware.multiply_accumulates += out_height * out_width * int(np.count_nonzero(weight))


def geometry(x: Value, sweep: Sweep, kernel: tuple[int, ...]) -> dict[str, Any]:
    """What hls4ml's layers with windows over an image have in common."""
    _, channels, height, width = x.index.shape
    _, filters, out_height, out_width = sweep.shape
    (sy, sx), (py, px) = sweep.stride, sweep.padding
    return {
        "inputs": [x.variable], "data_format": "channels_last", "in_height": height,
        "in_width": width, "n_chan": channels, "out_height": out_height, "out_width": out_width,
        "n_filt": filters, "stride_height": sy, "stride_width": sx,
        "padding": "same" if py or px else "valid",
        "pad_top": py, "pad_bottom": _pad_end(height, out_height, sy, kernel[0], py),
        "pad_left": px, "pad_right": _pad_end(width, out_width, sx, kernel[1], px),
        "out_shape": [out_height, out_width, filters],
    }  # fmt: skip


def linear(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Dense of hls4ml for one vector, a pointwise Conv1D for a row of them."""
    weight = tables.constant_array(b.module, node.args[1])
    return _linear(b, node, weight, _bias(b, node, len(weight)), encoding, fixed)


def constant_matmul(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """``x @ constant`` is a linear map without bias."""
    weight = tables.constant_array(b.module, node.args[1]).T
    return _linear(b, node, weight, np.zeros(len(weight)), encoding, fixed)


def _linear(
    b: Builder, node: Node, weight: Floats, bias: Floats, encoding: Encoding, fixed: FixedPoint
) -> Value:
    given = b.operand(node.args[0])
    outputs, inputs = weight.shape
    rows = given.index.size // inputs
    # hls4ml's line buffers go by the first two axes of a variable, its Dense by the only one.
    given = given.indexed(given.index.reshape(1, *([rows] if rows > 1 else []), inputs))
    x = b.logical(given, f"{node.name}_input")
    shape = g.shape_of(node)
    common = {
        "name": node.name, "inputs": [x.variable], "weight_data": weight.T, "bias_data": bias,
        "use_bias": True, "out_shape": [outputs] if rows == 1 else [rows, outputs],
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
    return Value(node.name, np.arange(rows * outputs).reshape(shape), encoding, fixed)


def merge(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Add, Subtract or Multiply of hls4ml on two activations; broadcasting is wires."""
    shape = g.shape_of(node)
    pair_ = [b.operand(a) for a in node.args[:2]]
    pair_ = [v.indexed(np.broadcast_to(v.index, shape)) for v in pair_]
    order = b.common_order(pair_)
    operands = [
        b.ordered(v, order, f"{node.name}_{side}") for side, v in zip("ab", pair_, strict=True)
    ]
    layer = {
        "class_name": "Merge", "name": node.name, "op": _MERGES[node.target].lower(),
        "inputs": [v.variable for v in operands], "out_shape": b.shape_in(order, shape),
    }  # fmt: skip
    b.firmware.add(layer, {"result": result_type(fixed)})
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


def _pad_end(size: int, out: int, stride: int, kernel: int, start: int) -> int:
    return max(0, (out - 1) * stride + kernel - size - start)
