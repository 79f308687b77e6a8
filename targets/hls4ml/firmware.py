"""Firmware while it grows: values, wires and layers.

A value of the program is a variable of the firmware plus an array that says, for every logical
element, which element of the flat variable it is. A reshape or transpose changes that array; when
an operator needs another order, one layer of wires makes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.targets.hls4ml.precision import needed, result_type

Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Value:
    """A program value in the firmware."""

    variable: str
    index: Index
    """Flat element of the variable for every logical element, batch axis included (size 1)."""
    encoding: Encoding
    fixed: FixedPoint


@dataclass
class Firmware:
    """The layer list while it grows."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    precisions: dict[str, dict[str, str]] = field(default_factory=dict)
    accumulators: dict[str, str] = field(default_factory=dict)
    multiply_accumulates: int = 0

    def add(self, layer: dict[str, Any], types: dict[str, str]) -> None:
        """Append a layer with its types."""
        self.layers.append(layer)
        self.precisions[layer["name"]] = types
        if "accum" in types:
            self.accumulators[layer["name"]] = types["accum"]


class Builder:
    """Turns nodes into layers, one after the other."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.firmware = Firmware()
        self.values: dict[Node, Value] = {}

    def input(self, node: Node) -> None:
        """The firmware's input: channels last, rounded and limited as the program does."""
        encoding = g.produced_encoding(self.module, node)
        fixed = needed(encoding, f"the input {node.name}")
        assert encoding is not None
        shape = g.shape_of(node)
        layer = {
            "class_name": "InputLayer", "name": node.name, "input_shape": list(hls_shape(shape)),
        }  # fmt: skip
        self.firmware.add(layer, {"result": result_type(fixed)})
        self.values[node] = Value(node.name, channels_last(shape), encoding, fixed)

    def view(self, node: Node) -> None:
        """The operator applied to the wires instead of to the values."""
        source = node.args[0]
        assert isinstance(source, Node) and callable(node.target)
        value = self.values[g.through_quantization(source)]
        index = node.target(torch.from_numpy(value.index), *node.args[1:], **node.kwargs)
        self.values[node] = Value(value.variable, index.numpy(), value.encoding, value.fixed)

    def operand(self, node: Any) -> Value:
        """The value that an operator reads."""
        return self.values[g.through_quantization(node)]

    def ordered(self, value: Value, wanted: Index, name: str, *, force: bool = False) -> Value:
        """The value in a variable whose element ``wanted[i]`` is logical element i."""
        wanted = wanted.reshape(value.index.shape)
        size = int(wanted.max()) + 1
        if not force and self._size(value) == size and np.array_equal(value.index, wanted):
            return value
        source = np.empty(size, np.int64)
        source[wanted.ravel()] = value.index.ravel()
        shape = value.index.shape
        types = {"result": result_type(value.fixed)}
        self.custom(
            name, "wires", [value], lookup_source(source), shape_of_order(shape, wanted), types
        )
        return Value(name, wanted, value.encoding, value.fixed)

    def _size(self, value: Value) -> int:
        layer = next(x for x in self.firmware.layers if x["name"] == value.variable)
        return int(np.prod(layer.get("input_shape") or layer["out_shape"]))

    def logical(self, value: Value, name: str) -> Value:
        """The value in row-major order of its logical shape."""
        return self.ordered(value, np.arange(value.index.size), name)

    def canonical(self, value: Value, name: str) -> Value:
        """The value channels last if it is an image, else row-major."""
        return self.ordered(value, channels_last(value.index.shape), name)

    def custom(
        self,
        name: str,
        function: str,
        inputs: list[Value],
        constants: str,
        shape: tuple[int, ...],
        types: dict[str, str],
    ) -> None:
        """Append a layer of ``nnet_edgemix.h``."""
        layer = {
            "class_name": "Edgemix", "name": name, "inputs": [v.variable for v in inputs],
            "function": function, "constants": constants, "out_shape": list(shape),
        }  # fmt: skip
        self.firmware.add(layer, types)


def lookup_source(source: Index) -> str:
    """``source(i)`` of a layer of wires."""
    listed = ", ".join(map(str, source.tolist()))
    return (
        "    static int source(unsigned i) {\n"
        f"        static const int values[] = {{{listed}}};\n        return values[i];\n    }}\n"
    )


def channels_last(shape: tuple[int, ...]) -> Index:
    """Flat element of every logical element [1, c, h, w] when channels run fastest."""
    if len(shape) != 4:
        return np.arange(int(np.prod(shape))).reshape(shape)
    _, c, h, w = shape
    return np.arange(c * h * w).reshape(1, h, w, c).transpose(0, 3, 1, 2)


def hls_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The firmware's shape of a program's shape: no batch, channels last."""
    if len(shape) == 4:
        return (shape[2], shape[3], shape[1])
    return shape[1:] or (1,)


def shape_of_order(shape: tuple[int, ...], order: Index) -> tuple[int, ...]:
    """The firmware's shape of a variable in that order."""
    if len(shape) == 4 and np.array_equal(order, channels_last(shape)):
        return hls_shape(shape)
    return shape[1:] or (1,)
