"""Operators that ``nnet_edgemix.h`` computes: tables, means, maxima, products, wires."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga import dataflow, tables
from edgemix.targets.fpga.dataflow import Index
from edgemix.targets.fpga.precision import (
    exact_type,
    inner_product,
    plain_type,
    raw_bounds,
    result_type,
)
from edgemix.targets.hls4ml.firmware import Builder, Value, channels_last, hls_shape, lookup


def matmul(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Batched product of two activations."""
    left, right = (b.operand(a) for a in node.args[:2])
    batch = np.broadcast_shapes(left.index.shape[:-2], right.index.shape[:-2])
    rows, inner = left.index.shape[-2:]
    columns = right.index.shape[-1]
    pair = []
    for side, value in (("a", left), ("b", right)):
        index = np.broadcast_to(value.index, (*batch, *value.index.shape[-2:]))
        pair.append(b.logical(value.indexed(index), f"{node.name}_{side}"))
    accumulator = inner_product(left.fixed, right.fixed, inner)
    constants = members(
        n_batch=int(np.prod(batch)), n_row=rows, n_inner=inner, n_column=columns
    ) + accumulator_type(accumulator)
    shape = g.shape_of(node)
    b.custom(node.name, "matmul", pair, constants, shape[1:], result_type(fixed))
    b.firmware.accumulators[node.name] = plain_type(accumulator)
    b.firmware.multiply_accumulates += int(np.prod(batch)) * rows * inner * columns
    return Value(node.name, np.arange(int(np.prod(shape))).reshape(shape), encoding, fixed)


def scalar_function(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """A table of the function's value for every input."""
    x = b.operand(tables.argument_of(node))
    table = tables.table(b.module, node, x.encoding, encoding)
    b.firmware.near_ties[node.name] = table.near_ties
    return _table(b, node, x, table.integers, encoding, fixed)


def clamp(b: Builder, node: Node, x: Value) -> Value:
    """A ReLU after rounding, in the operand's own type."""
    lowest, highest = raw_bounds(x.fixed)
    patterns = [*range(highest + 1), *range(lowest, 0)]
    return _table(b, node, x, [max(p, 0) for p in patterns], x.encoding, x.fixed)


def _table(
    b: Builder, node: Node, x: Value, integers: Sequence[int], encoding: Encoding,
    fixed: FixedPoint,
) -> Value:  # fmt: skip
    constants = members(width=fixed.width + 1) + lookup("value", integers)
    size = int(np.prod(x.index.shape))
    order = x.index if b.whole(x, size) else channels_last(x.index.shape)
    x = b.ordered(x, order, f"{node.name}_input")
    shape = b.shape_in(order, x.index.shape)
    b.custom(node.name, "table", [x], constants, shape, result_type(fixed))
    return Value(node.name, order.reshape(g.shape_of(node)), encoding, fixed)


def with_constant(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Add, subtract or multiply by constants, one for each element or broadcast."""
    first, second = node.args[:2]
    flipped = tables.constant_root(first) is not None
    activation, constant = (second, first) if flipped else (first, second)
    shape = g.shape_of(node)
    x = b.operand(activation)
    x = x.indexed(np.broadcast_to(x.index, shape))
    x = b.canonical(x, f"{node.name}_input")
    values = np.broadcast_to(tables.constant_array(b.module, constant), shape)
    if node.target is aten.sub.Tensor and not flipped:
        values = -values
    order = channels_last(shape)
    flat = np.empty(order.size)
    flat[order.ravel()] = values.ravel()
    held = exact_type(flat)
    raw = np.rint(flat * 2.0**held.fraction).astype(np.int64)
    multiplies = node.target is aten.mul.Tensor
    negated = node.target is aten.sub.Tensor and flipped
    constants = (
        members(width=held.width, multiplies=int(multiplies), negated=int(negated))
        + f"    typedef {plain_type(held)} constant_t;\n"
        + lookup("value", raw.tolist())
    )
    b.custom(node.name, "constant", [x], constants, hls_shape(shape), result_type(fixed))
    return Value(node.name, order, encoding, fixed)


def mean(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Means over windows or axes, of values or of their squares: an exact sum, one division."""
    source = node.args[0]
    assert isinstance(source, Node)
    squares = source.target is aten.mul.Tensor and g.exact_between(source)
    x = b.operand(source.args[0] if squares else source)
    return _sum(b, node, x, encoding, fixed, squares=squares, divide=True)


def total(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Sums over axes."""
    x = b.operand(node.args[0])
    return _sum(b, node, x, encoding, fixed, squares=False, divide=False)


def _sum(
    b: Builder, node: Node, x: Value, encoding: Encoding, fixed: FixedPoint, *, squares: bool,
    divide: bool,
) -> Value:  # fmt: skip
    x, sets = _windows(b, node, x)
    longest = max(len(s) for s in sets)
    divisor = longest if divide else 1
    peak = max(map(abs, raw_bounds(x.fixed)))
    fraction = x.fixed.fraction * (2 if squares else 1)
    up = max(0, fixed.fraction - fraction)
    down = max(0, fraction - fixed.fraction)
    peak = peak**2 if squares else peak
    lowest, highest = raw_bounds(fixed)
    width = max(peak * longest << up, divisor << down, abs(lowest), highest).bit_length() + 2
    b.firmware.accumulators[node.name] = f"ap_int<{width}>"
    constants = members(
        width=width, shift_up=up, shift_down=down, lowest=lowest, highest=highest,
        squares=int(squares), divides=int(divide),
    )  # fmt: skip
    return _reduction(b, node, "mean", x, sets, constants, encoding, fixed)


def maximum(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Maxima over windows or axes."""
    x, sets = _windows(b, node, b.operand(node.args[0]))
    return _reduction(b, node, "max", x, sets, "", encoding, fixed)


def concatenation(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Values side by side; their common encoding makes it wires."""
    parts: Any = node.args[0]
    axis = int(dataflow.argument(node, 1, 0))
    values = [b.operand(p) for p in parts]
    joined = values[0]
    for i, value in enumerate(values[1:]):
        offset = b.size(joined)
        index = np.concatenate([joined.index, value.index + offset], axis)
        source = index.ravel()
        shape = index.shape[1:]
        name = node.name if i == len(values) - 2 else f"{node.name}_{i}"
        constants = members(n_first=offset) + lookup("source", source.tolist())
        b.custom(name, "join", [joined, value], constants, shape, result_type(fixed))
        joined = Value(name, np.arange(index.size).reshape(index.shape), encoding, fixed)
    return joined


def _windows(b: Builder, node: Node, x: Value) -> tuple[Value, list[Index]]:
    """The operand and, for every element of the result, which elements of it are reduced."""
    x = b.canonical(x, f"{node.name}_input")
    flat = x.index.ravel()
    return x, [flat[w] for w in dataflow.windows(node)]


def _reduction(
    b: Builder, node: Node, function: str, x: Value, sets: Sequence[Index], constants: str,
    encoding: Encoding, fixed: FixedPoint,
) -> Value:  # fmt: skip
    shape = g.shape_of(node)
    order = channels_last(shape)
    by_variable: list[Index] = [np.empty(0, np.int64)] * len(sets)
    for logical, element in enumerate(order.ravel()):
        by_variable[int(element)] = sets[logical]
    longest = max(len(s) for s in sets)
    padded = [int(v) for s in by_variable for v in [*s, *[s[0]] * (longest - len(s))]]
    constants += (
        members(n_window=longest)
        + lookup("count", [len(s) for s in by_variable])
        + lookup("source", padded, "unsigned i, unsigned j", "i * n_window + j")
    )
    b.custom(node.name, function, [x], constants, hls_shape(shape), result_type(fixed))
    return Value(node.name, order, encoding, fixed)


def members(**values: int) -> str:
    """Constants of a layer's configuration."""
    return "".join(f"    static const int {name} = {value};\n" for name, value in values.items())


def accumulator_type(fixed: FixedPoint) -> str:
    """The type of a layer's accumulator."""
    return f"    typedef {plain_type(fixed)} accum_t;\n"
