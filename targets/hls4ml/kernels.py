"""Operators that ``nnet_edgemix.h`` computes: tables, means, maxima, products, wires."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga import dataflow, tables
from edgemix.targets.fpga.dataflow import Window
from edgemix.targets.fpga.precision import (
    exact_type,
    inner_product,
    plain_type,
    raw_bounds,
    result_type,
)
from edgemix.targets.hls4ml.firmware import (
    Builder,
    Part,
    Value,
    channels_last,
    hls_shape,
    lookup,
    members,
    without_batch,
)


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
    part = Part(1, b.size(pair[0]), int(np.prod(shape)))
    b.custom(node.name, "matmul", pair, constants, without_batch(shape), result_type(fixed), part)
    b.firmware.accumulators[node.name] = plain_type(accumulator)
    b.firmware.multiply_accumulates += int(np.prod(batch)) * rows * inner * columns
    return Value(node.name, np.arange(int(np.prod(shape))).reshape(shape), encoding, fixed)


def scalar_function(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """A table of the function's value for every input."""
    x = b.operand(tables.argument_of(node))
    table = tables.table(b.module, node, x.encoding, encoding)
    b.firmware.near_ties[node.name] = table.near_ties
    return _table(b, node, x, table.integers, encoding, fixed)


def rounding(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """A value in fewer bits: an assignment to the type that rounds."""
    x = b.operand(node.args[0])
    shape = b.shape(x)
    part = b.parts(x, shape, np.arange(b.size(x))[:, None])
    constants = lookup("source", list(range(part.outputs)))
    b.custom(node.name, "wires", [x], constants, shape, result_type(fixed), part)
    return Value(node.name, x.index, encoding, fixed)


def spike(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """A comparison with constants, or with another activation and a constant."""
    compared = dataflow.threshold(b.module, node)
    assert compared is not None
    shape = g.shape_of(node)
    sides = [n for n in (compared.first, compared.second) if n is not None]
    values = [b.operand(n) for n in sides]
    values = [v.indexed(np.broadcast_to(v.index, shape)) for v in values]
    values = [b.canonical(v, f"{node.name}_side{i}") for i, v in enumerate(values)]
    fraction = max(v.fixed.fraction for v in values)
    shifts = [fraction - v.fixed.fraction for v in values]
    bounds = np.broadcast_to(compared.on_grid(fraction), shape)
    widest = max(v.fixed.width + s for v, s in zip(values, shifts, strict=True)) + 3
    # A bound that no value reaches is as good as the nearest that fits.
    limit = 1 << (min(widest, 31) - 1)
    order = channels_last(shape)
    flat = np.empty(order.size, np.int64)
    flat[order.ravel()] = np.clip(bounds, -limit, limit - 1).ravel()
    constants = members(
        width=widest, negated=int(compared.negated), shift=shifts[0],
        **({"shift2": shifts[1], "sign": compared.sign} if len(values) > 1 else {}),
    ) + lookup("bound", flat.tolist())  # fmt: skip
    function = "spike" if len(values) == 1 else "spike2"
    part = Part(1, b.size(values[0]), order.size)
    b.custom(node.name, function, values, constants, hls_shape(shape), result_type(fixed), part)
    return Value(node.name, order, encoding, fixed)


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
    if not b.whole(x, x.index.size):
        x = b.canonical(x, f"{node.name}_input")
    shape = b.shape(x)
    part = b.parts(x, shape, np.arange(x.index.size)[:, None])
    b.custom(node.name, "table", [x], constants, shape, result_type(fixed), part)
    return Value(node.name, x.index.reshape(g.shape_of(node)), encoding, fixed)


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
    part = b.parts(x, hls_shape(shape), np.arange(order.size)[:, None])
    b.custom(node.name, "constant", [x], constants, hls_shape(shape), result_type(fixed), part)
    return Value(node.name, order, encoding, fixed)


def mean(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Means over windows or axes, of values or of their squares: an exact sum, one division."""
    source = node.args[0]
    assert isinstance(source, Node)
    squares = source.target is aten.mul.Tensor and g.exact_between(source)
    x = b.operand(source.args[0] if squares else source)
    x, sets = _windows(b, node, x)
    return reduce(b, node, x, sets, encoding, fixed, squares=squares)


def total(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Sums over axes."""
    x, sets = _windows(b, node, b.operand(node.args[0]))
    return reduce(b, node, x, sets, encoding, fixed)


def reduce(
    b: Builder, node: Node, x: Value, sets: Sequence[Window], encoding: Encoding,
    fixed: FixedPoint, *, squares: bool = False,
) -> Value:  # fmt: skip
    """Sums over sets, each divided by a constant and rounded once."""
    divisors = [s.divisor for s in sets]
    fraction = x.fixed.fraction * (2 if squares else 1)
    up = max(0, fixed.fraction - fraction)
    down = max(0, fraction - fixed.fraction)
    peak = max(map(abs, raw_bounds(x.fixed))) ** (2 if squares else 1)
    longest = max(s.members.size for s in sets)
    lowest, highest = raw_bounds(fixed)
    largest = max(peak * longest << up, max(divisors) << down, abs(lowest), highest)
    width = largest.bit_length() + 2
    b.firmware.accumulators[node.name] = f"ap_int<{width}>"
    order = channels_last(g.shape_of(node))
    kinds = sorted(set(divisors))
    chosen = np.empty(len(sets), np.int64)
    chosen[order.ravel()] = [kinds.index(d) for d in divisors]
    constants = (
        members(
            width=width, shift_up=up, shift_down=down, lowest=lowest, highest=highest,
            squares=int(squares), n_divisors=len(kinds),
        )
        + lookup("divisor", kinds)
        + lookup("chosen", chosen.tolist())
    )  # fmt: skip
    return _reduction(b, node, "mean", x, sets, constants, encoding, fixed)


def maximum(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Maxima over windows or axes."""
    x, sets = _windows(b, node, b.operand(node.args[0]))
    return _reduction(b, node, "max", x, sets, "", encoding, fixed)


def concatenation(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Values side by side; their common encoding makes it wires."""
    operands: Any = node.args[0]
    axis = int(dataflow.argument(node, 1, 0))
    if any(tables.constant_root(p) is not None for p in operands):
        return _filled(b, node, operands, axis, encoding, fixed)
    values = [b.operand(p) for p in operands]
    joined = b.canonical(values[0], f"{node.name}_first")
    for i, value in enumerate(values[1:]):
        # Not {name}_1, which is what a second node of the kind is called.
        name = node.name if i == len(values) - 2 else f"{node.name}_part{i}"
        second = b.canonical(value, f"{name}_second")
        joined = _join(b, name, joined, second, axis, encoding, fixed)
    return joined


def _filled(
    b: Builder, node: Node, operands: Sequence[Node], axis: int, encoding: Encoding,
    fixed: FixedPoint,
) -> Value:  # fmt: skip
    """One activation and constants side by side."""
    pieces: list[Any] = []
    read: Value | None = None
    for operand in operands:
        if tables.constant_root(operand) is not None:
            constant = torch.from_numpy(tables.constant_array(b.module, operand)).float()
            # Places of the activation are not negative: a constant's integer is kept below.
            units = encoding.quantize(constant).numpy().astype(np.int64) - encoding.zero_point[0]
            pieces.append(-1 - (units - raw_bounds(fixed)[0]))
        else:
            assert read is None, "support lets one activation through"
            read = b.operand(operand)
            pieces.append(read.index)
    assert read is not None
    index = np.concatenate(pieces, axis)
    order = channels_last(index.shape)
    flat = np.empty(index.size, np.int64)
    flat[order.ravel()] = index.ravel()
    values = np.where(flat < 0, -1 - flat + raw_bounds(fixed)[0], 0)
    constants = (
        members(width=fixed.width + 1)
        + lookup("source", np.maximum(flat, -1).tolist())
        + lookup("value", values.tolist())
    )
    part = Part(1, b.size(read), index.size)
    shape = hls_shape(index.shape)
    b.custom(node.name, "filled", [read], constants, shape, result_type(fixed), part)
    return Value(node.name, order, encoding, fixed)


def _join(
    b: Builder, name: str, first: Value, second: Value, axis: int, encoding: Encoding,
    fixed: FixedPoint,
) -> Value:  # fmt: skip
    offset = b.size(first)
    index = np.concatenate([first.index, second.index + offset], axis)
    order = channels_last(index.shape)
    source = np.empty(index.size, np.int64)
    source[order.ravel()] = index.ravel()
    shape = hls_shape(index.shape)
    part = Part(1, offset, index.size)
    widths = b.shape(first)[-1], b.shape(second)[-1]
    if b.streaming and len(shape) > 1 and sum(widths) == shape[-1]:
        # Along the channels: every pixel is made of the two pixels at its place.
        part = Part(math.prod(shape[:-1]), widths[0], shape[-1])
        source = np.arange(shape[-1])
    constants = lookup("source", source.tolist())
    b.custom(name, "join", [first, second], constants, shape, result_type(fixed), part)
    return Value(name, order, encoding, fixed)


def _windows(b: Builder, node: Node, x: Value) -> tuple[Value, list[Window]]:
    """The operand and, for every element of the result, which elements of it are reduced."""
    x = b.canonical(x, f"{node.name}_input")
    flat = x.index.ravel()
    return x, [replace(w, members=flat[w.members]) for w in dataflow.windows(node)]


def _reduction(
    b: Builder, node: Node, function: str, x: Value, sets: Sequence[Window], constants: str,
    encoding: Encoding, fixed: FixedPoint,
) -> Value:  # fmt: skip
    shape = g.shape_of(node)
    order = channels_last(shape)
    longest = max(s.members.size for s in sets)
    counts = np.empty(len(sets), np.int64)
    reads = np.empty((len(sets), longest), np.int64)
    counts[order.ravel()] = [s.members.size for s in sets]
    reads[order.ravel()] = [np.resize(s.members, longest) for s in sets]
    part = b.parts(x, hls_shape(shape), reads)
    constants += (
        members(n_window=longest)
        + lookup("count", counts[: part.outputs].tolist())
        + lookup(
            "source", reads[: part.outputs].ravel().tolist(), "unsigned i, unsigned j",
            "i * n_window + j",
        )
    )  # fmt: skip
    b.custom(node.name, function, [x], constants, hls_shape(shape), result_type(fixed), part)
    return Value(node.name, order, encoding, fixed)


def accumulator_type(fixed: FixedPoint) -> str:
    """The type of a layer's accumulator."""
    return f"    typedef {plain_type(fixed)} accum_t;\n"
