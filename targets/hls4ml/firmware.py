"""Firmware while it grows: values, wires and layers.

A value of the program is a variable of the firmware plus an array that says, for every logical
element, which element of the flat variable it is. A reshape or transpose changes that array; when
an operator needs another order, one layer of wires makes it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.errors import EdgemixError
from edgemix.graph import Where
from edgemix.targets.fpga.dataflow import Index, viewed
from edgemix.targets.fpga.hardware import Interface
from edgemix.targets.fpga.precision import needed, result_type


@dataclass(frozen=True)
class Value:
    """A program value in the firmware."""

    variable: str
    index: Index
    """Flat element of the variable for every logical element, batch axis included (size 1)."""
    encoding: Encoding
    fixed: FixedPoint

    def indexed(self, index: Index) -> Value:
        """The same variable, read in another order or more often."""
        return replace(self, index=index)


@dataclass(frozen=True)
class Part:
    """What one call of a layer's function works on: a pixel of a stream, or a whole tensor."""

    count: int
    inputs: int
    outputs: int


@dataclass
class Firmware:
    """The layer list while it grows."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    precisions: dict[str, dict[str, str]] = field(default_factory=dict)
    accumulators: dict[str, str] = field(default_factory=dict)
    origins: dict[str, Where] = field(default_factory=dict)
    """Which node of the program a layer computes."""
    near_ties: dict[str, int] = field(default_factory=dict)
    multiply_accumulates: int = 0
    now: Where = field(default_factory=lambda: Where("input"))
    """The node whose layers are being added."""

    def add(self, layer: dict[str, Any], types: dict[str, str]) -> None:
        """Append a layer with its types."""
        if layer["name"] in self.precisions:
            raise EdgemixError(f"two layers of the firmware are called {layer['name']}")
        self.layers.append(layer)
        self.precisions[layer["name"]] = types
        self.origins[layer["name"]] = self.now
        if "accum" in types:
            self.accumulators[layer["name"]] = types["accum"]


class Builder:
    """Turns nodes into layers, one after the other."""

    def __init__(self, module: GraphModule, interface: Interface = "io_parallel") -> None:
        self.module = module
        self.streaming = interface == "io_stream"
        self.firmware = Firmware()
        self.values: dict[Node, Value] = {}

    def input(self, node: Node) -> None:
        """The firmware's input: channels last, rounded and limited as the program does."""
        encoding = g.produced_encoding(self.module, node)
        fixed = needed(encoding, f"the input {node.name}")
        assert encoding is not None
        shape = g.shape_of(node)
        # A name of its own: the user's may be a keyword of C++.
        name = f"in_{node.name}"
        layer = {"class_name": "InputLayer", "name": name, "input_shape": list(hls_shape(shape))}
        self.firmware.add(layer, {"result": result_type(fixed)})
        self.values[node] = Value(name, channels_last(shape), encoding, fixed)

    def view(self, node: Node) -> None:
        """The operator applied to the wires instead of to the values."""
        source = node.args[0]
        assert isinstance(source, Node)
        value = self.values[g.through_quantization(source)]
        self.values[node] = value.indexed(viewed(node, value.index))

    def operand(self, node: Any) -> Value:
        """The value that an operator reads."""
        return self.values[g.through_quantization(node)]

    def ordered(self, value: Value, wanted: Index, name: str, *, force: bool = False) -> Value:
        """The value in a variable whose element ``wanted[i]`` is logical element i."""
        wanted = wanted.reshape(value.index.shape)
        size = int(wanted.max()) + 1
        shape = self.shape_in(wanted, value.index.shape)
        # The shape counts too: line buffers go by it, and so do pixels of a stream.
        if not force and self.shape(value) == shape and np.array_equal(value.index, wanted):
            return value
        source = np.empty(size, np.int64)
        source[wanted.ravel()] = value.index.ravel()
        part = self.parts(value, shape, source[:, None])
        constants = lookup("source", source[: part.outputs].tolist())
        self.custom(name, "wires", [value], constants, shape, result_type(value.fixed), part)
        return Value(name, wanted, value.encoding, value.fixed)

    def shape(self, value: Value) -> list[int]:
        """The firmware's shape of the variable behind a value: pixels last axis by last axis."""
        layer = next(x for x in self.firmware.layers if x["name"] == value.variable)
        return list(layer.get("input_shape") or layer["out_shape"])

    def size(self, value: Value) -> int:
        """Elements of the variable behind a value."""
        return int(np.prod(self.shape(value)))

    def parts(self, x: Value, shape: Sequence[int], reads: Index) -> Part:
        """Into which parts a layer splits.

        Args:
            x: its operand.
            shape: the firmware's shape of its result.
            reads: [outputs, n] elements of the operand that each output is made of.
        """
        there = self.shape(x)
        pixels, channels, outputs = math.prod(shape[:-1]), there[-1], shape[-1]
        whole = Part(1, math.prod(there), math.prod(shape))
        if not self.streaming or pixels == 1 or pixels != math.prod(there[:-1]):
            return whole
        by_pixel = reads.reshape(pixels, outputs, -1) - channels * np.arange(pixels)[:, None, None]
        return Part(pixels, channels, outputs) if (by_pixel == by_pixel[0]).all() else whole

    def whole(self, value: Value, size: int) -> bool:
        """Whether a value is every element of its variable once."""
        return self.size(value) == size == np.unique(value.index).size

    def common_order(self, values: Sequence[Value]) -> Index:
        """An order in which as few of some values of one shape as possible need wires."""
        size = values[0].index.size
        for value in values:
            if self.whole(value, size):
                return value.index
        return channels_last(values[0].index.shape)

    def shape_in(self, order: Index, shape: tuple[int, ...]) -> list[int]:
        """The firmware's shape of a variable in that order."""
        if np.array_equal(order, channels_last(shape)):
            return list(hls_shape(shape))
        return list(without_batch(shape))

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
        shape: Sequence[int],
        result: str,
        part: Part,
    ) -> None:
        """Append a layer of ``nnet_edgemix.h``."""
        sizes = members(n_parts=part.count, n_in=part.inputs, n_out=part.outputs)
        if len(inputs) > 1:
            sizes += members(n_in2=self.size(inputs[1]) // part.count)
        layer = {
            "class_name": "Edgemix", "name": name, "inputs": [v.variable for v in inputs],
            "function": function, "constants": sizes + constants, "out_shape": list(shape),
        }  # fmt: skip
        self.firmware.add(layer, {"result": result})


def members(**values: int) -> str:
    """Constants of a layer's configuration."""
    return "".join(f"    static const int {name} = {value};\n" for name, value in values.items())


def lookup(
    name: str, values: Sequence[int], arguments: str = "unsigned i", place: str = "i"
) -> str:
    """A constant function of a layer's configuration."""
    listed = ", ".join(map(str, values))
    return (
        f"    static int {name}({arguments}) {{\n"
        f"        static const int values[] = {{{listed}}};\n"
        f"        return values[{place}];\n    }}\n"
    )


def channels_last(shape: tuple[int, ...]) -> Index:
    """Flat element of every logical element [n, c, h, w] when channels run fastest."""
    if len(shape) != 4:
        return np.arange(int(np.prod(shape))).reshape(shape)
    n, c, h, w = shape
    return np.arange(n * c * h * w).reshape(n, h, w, c).transpose(0, 3, 1, 2)


def hls_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The firmware's shape of a program's shape: no batch, channels last."""
    if len(shape) == 4:
        n, c, h, w = shape
        shape = (n, h, w, c)
    return without_batch(shape)


def without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its first axis; what windows and rows there are in it stand one by one."""
    if shape[0] == 1:
        return shape[1:] or (1,)
    return (shape[0] * shape[1], *shape[2:]) if len(shape) > 2 else shape
