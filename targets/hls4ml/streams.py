"""Windows over streamed images: hls4ml's line buffers hold rows, not whole images."""

from __future__ import annotations

import numpy as np
from torch.fx import Node

from edgemix import graph as g
from edgemix.encoding import Encoding, FixedPoint
from edgemix.graph import aten
from edgemix.targets.fpga import dataflow
from edgemix.targets.fpga.dataflow import Window, argument, pair
from edgemix.targets.fpga.precision import plain_type, product_sum, result_type
from edgemix.targets.hls4ml import kernels
from edgemix.targets.hls4ml.firmware import Builder, Value, channels_last
from edgemix.targets.hls4ml.native import Sweep, add_convolution, geometry

_AVERAGES = (aten.avg_pool2d.default, aten.avg_pool1d.default)


def takes(node: Node) -> bool:
    """Whether a pooling sweeps a window that a line buffer of hls4ml can hold.

    Its maximum wants windows side by side, without padding; others, and several images in the first
    axis, are collected whole.
    """
    if g.shape_of(node)[0] != 1:
        return False
    if node.target in _AVERAGES:
        return True
    if node.target not in (aten.max_pool2d.default, aten.max_pool1d.default):
        return False
    tiles = _stride(node) == _pair(node, 1, 1)
    if not tiles or _pair(node, 3, 0) != (0, 0) or _pair(node, 4, 1) != (1, 1):
        return False
    # A ceiling makes windows that leave the image.
    _, _, height, width = _image(g.shape_of(node.args[0]))  # type: ignore[arg-type]
    _, _, out_height, out_width = _image(g.shape_of(node))
    (ky, kx), (sy, sx) = _pair(node, 1, 1), _stride(node)
    return (out_height - 1) * sy + ky <= height and (out_width - 1) * sx + kx <= width


def pooling(b: Builder, node: Node, encoding: Encoding, fixed: FixedPoint) -> Value:
    """Average or maximum over windows."""
    given = b.operand(node.args[0])
    x = b.canonical(given.indexed(_row(given.index)), f"{node.name}_input")
    shape = _image(g.shape_of(node))
    sweep = Sweep(_stride(node), (0, 0), shape, depthwise=True)
    if node.target not in _AVERAGES:
        found = _maximum(b, node, x, sweep, encoding, fixed)
    else:
        found = _average(b, node, x, sweep, encoding, fixed)
    return found.indexed(found.index.reshape(g.shape_of(node)))


def _average(
    b: Builder, node: Node, x: Value, sweep: Sweep, encoding: Encoding, fixed: FixedPoint
) -> Value:
    """Exact sums by a depthwise convolution of ones, divided by as many as each has."""
    channels = x.index.shape[1]
    weight = np.ones((channels, 1, *_pair(node, 1, 1)))
    zero = np.zeros(channels)
    exact = product_sum(x.fixed, weight.reshape(channels, -1), zero)
    name = f"{node.name}_sum"
    padded = Sweep(sweep.stride, _pair(node, 3, 0), sweep.shape, depthwise=True)
    add_convolution(b, name, x, weight, zero, padded, exact)
    sums = Value(name, channels_last(sweep.shape), x.encoding, exact)
    divisors = [w.divisor for w in dataflow.windows(node)]
    places = sums.index.ravel()
    sets = [Window(places[i : i + 1], d) for i, d in enumerate(divisors)]
    return kernels.reduce(b, node, sums, sets, encoding, fixed)


def _maximum(
    b: Builder, node: Node, x: Value, sweep: Sweep, encoding: Encoding, fixed: FixedPoint
) -> Value:
    kernel = _pair(node, 1, 1)
    layer = {
        "class_name": "MaxPooling2D", "name": node.name, **geometry(x, sweep, kernel),
        "pool_height": kernel[0], "pool_width": kernel[1], "count_pad": False,
    }  # fmt: skip
    b.firmware.add(layer, {"result": result_type(fixed), "accum": plain_type(x.fixed)})
    return Value(node.name, channels_last(sweep.shape), encoding, fixed)


def _single(node: Node) -> bool:
    return len(g.shape_of(node)) == 3


def _pair(node: Node, position: int, default: int) -> tuple[int, int]:
    first, second = pair(node, position, default)
    if not _single(node):
        return first, second
    return (0 if position == 3 else 1), first


def _stride(node: Node) -> tuple[int, int]:
    """A stride that is left out is the window's size."""
    return _pair(node, 2 if argument(node, 2, None) else 1, 1)


def _image(shape: tuple[int, ...]) -> tuple[int, ...]:
    """One dimension is an image of one row."""
    return shape if len(shape) == 4 else (*shape[:2], 1, shape[2])


def _row(index: dataflow.Index) -> dataflow.Index:
    return index.reshape(_image(index.shape))
