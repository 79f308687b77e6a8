"""Operators for which XNNPACK has a slow kernel, or none: written as others that are fast.

A depthwise convolution of more than 25 taps it runs as one small matrix product for each channel:
in eight bits twenty times slower than in float, and in float five times slower than it need be. And
where a step of a sum is more than 256 steps of the result, it refuses the whole model. Hard swishes
of eight bits it leaves to LiteRT, where they are most of MobileNetV3's time, and attention, and
pools, and divisions.

Such an operator computes in float between the same integers. A product of two integers of eight
bits is exact there, and so are their sums up to 2²⁴, so that the result is the program's own; a
kernel of integers only comes close to that.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.targets.real import feed, pools

_TAPS = 25
"""The largest depthwise kernel that XNNPACK unrolls (``f32-dwconv``, ``25p``)."""
_RATIO = 256.0
"""Below which ``xnn_create_convolution2d_nhwc_qs8`` wants a sum's step over the result's."""


def between_integers(module: GraphModule) -> dict[str, int]:
    """Compute in float, in place, what has no good integer kernel; how many of each kind."""
    found = {
        "linear operators in float": _linear(module),
        "hard gates in float": _hard_gates(module),
        "attention in float": _attention(module),
        "pools in float": pools(module),
        "divisions in float": _divisions(module),
    }
    return {kind: count for kind, count in found.items() if count}


def _linear(module: GraphModule) -> int:
    """Wide depthwise convolutions, and operators whose sums are steep, with real weights."""
    found = [
        node
        for node in module.graph.nodes
        if node.target in g.LINEAR
        and g.is_dequantize(node.args[1])
        and (_is_wide(node) or _is_steep(module, node))
    ]
    for node in found:
        weight = node.args[1]
        assert isinstance(weight, Node)
        real = g.add_constant(module, node, f"{node.name}_real", g.dequantized(module, weight))
        node.replace_input_with(weight, real)
    module.graph.eliminate_dead_code()
    return len(found)


def _hard_gates(module: GraphModule) -> int:
    """Write hard swishes between integers as float x/6 · relu6(x + 3), in place.

    Returns how many gates compute in float: these, and the hard sigmoids, which TFLite has no
    integer kernel for. The factors stand so that the converter does not see a HARD_SWISH again.
    """
    count = 0
    for node in list(module.graph.nodes):
        if node.target is aten.hardsigmoid.default:
            count += g.is_dequantize(node.args[0])
        if node.target is not aten.hardswish.default or not g.is_dequantize(node.args[0]):
            continue
        source = node.args[0]
        with module.graph.inserting_before(node):
            sixth = module.graph.call_function(aten.mul.Tensor, (source, 1 / 6))
            above = module.graph.call_function(aten.add.Tensor, (source, 3.0))
            gate = module.graph.call_function(aten.clamp.default, (above, 0.0, 6.0))
            product = module.graph.call_function(aten.mul.Tensor, (sixth, gate))
        node.replace_all_uses_with(product, propagate_meta=False)
        module.graph.erase_node(node)
        count += 1
    return count


def _attention(module: GraphModule) -> int:
    """Compute products of two values, and softmaxes, in float.

    XNNPACK multiplies integers by constants only, and has no integer softmax. What is neutral in
    real numbers keeps the converter from making integer operators of these: twice one factor and
    half of the other, a softmax of shifted values.
    """
    count = 0
    for node in list(module.graph.nodes):
        sources = [s for s in node.all_input_nodes if g.is_dequantize(s) and not g.is_constant(s)]
        if node.target in g.MATRIX_PRODUCT and len(sources) == 2:
            feed(module, node, sources[0], aten.mul.Tensor, 2.0)
            feed(module, node, sources[1], aten.mul.Tensor, 0.5)
        elif node.target is aten.softmax.int and sources:
            feed(module, node, sources[0], aten.add.Tensor, 1.0)
        else:
            continue
        count += 1
    return count


def _divisions(module: GraphModule) -> int:
    """Divide in float: LiteRT's integer kernel multiplies by an approximate reciprocal.

    Both terms are doubled, which keeps the converter from making one.
    """
    count = 0
    for node in module.graph.find_nodes(op="call_function", target=aten.div.Tensor):
        terms = node.args[:2]
        if all(g.is_dequantize(t) for t in terms):
            for term in dict.fromkeys(terms):
                feed(module, node, term, aten.mul.Tensor, 2.0)
            count += 1
    return count


def strips(module: GraphModule) -> None:
    """Write depthwise convolutions of many taps as sums over strips of their rows, in place."""
    for node in list(module.graph.nodes):
        if _is_wide(node) and not g.is_dequantize(node.args[1]):
            _one_filter_each(module, node)
            _in_strips(module, node)
    module.graph.lint()


def _one_filter_each(module: GraphModule, node: Node) -> None:
    """Give each filter a channel of its own, where several share one, in place."""
    source, weight, bias, *window, groups = _arguments(node)
    filters = g.shape_of(node)[1]
    if filters == groups:
        return
    channels = torch.arange(groups).repeat_interleave(filters // groups)
    places = g.add_constant(module, node, f"{node.name}_channels", channels)
    with module.graph.inserting_before(node):
        repeated = module.graph.call_function(aten.index_select.default, (source, 1, places))
    batch, _, *size = g.shape_of(source)
    repeated.meta["val"] = source.meta["val"].new_empty((batch, filters, *size))
    node.args = (repeated, weight, bias, *window, filters)


def _is_wide(node: Node) -> bool:
    if node.target is not aten.conv2d.default:
        return False
    _, weight, _, _, padding, dilation, groups = _arguments(node)
    _, inputs, rows, columns = g.shape_of(weight)
    plain = not isinstance(padding, str) and g.pair(dilation) == (1, 1)
    depthwise = inputs == 1 and groups > 1
    return plain and depthwise and rows * columns > _TAPS >= columns and rows > 1


def _is_steep(module: GraphModule, node: Node) -> bool:
    source, weight = node.args[:2]
    assert isinstance(weight, Node)
    readers = [u for u in node.users if g.is_quantize(u)]
    if not g.is_dequantize(source) or not readers:
        return False
    assert isinstance(source, Node)
    step = g.encoding_of(module, source).scale[0] * max(g.encoding_of(module, weight).scale)
    return step >= _RATIO * g.encoding_of(module, readers[0]).scale[0]


def _in_strips(module: GraphModule, node: Node) -> None:
    source, weight, bias, stride, padding, _, groups = _arguments(node)
    (down, right), kernel = g.pair(padding), g.constant(module, weight)
    rows, columns = kernel.shape[2:]
    height, tall = g.shape_of(source)[2] + 2 * down, _TAPS // columns
    graph = module.graph
    with graph.inserting_before(node):
        around = [right, right, down, down]
        image = graph.call_function(aten.constant_pad_nd.default, (source, around, 0.0))
        total: Node | None = None
        for first in range(0, rows, tall):
            last = min(first + tall, rows)
            part = g.add_constant(
                module, node, f"{node.name}_rows_{first}", kernel[:, :, first:last].contiguous()
            )
            reach = (image, 2, first, height - (rows - last))
            band = graph.call_function(aten.slice.Tensor, reach)
            strip = graph.call_function(
                aten.conv2d.default, (band, part, bias, stride, [0, 0], [1, 1], groups)
            )
            bias = None
            total = strip if total is None else graph.call_function(aten.add.Tensor, (total, strip))
    assert total is not None
    node.replace_all_uses_with(total, propagate_meta=False)
    graph.erase_node(node)


def _arguments(node: Node) -> tuple[Any, ...]:
    """Input, weight, bias, stride, padding, dilation and groups of a convolution of images."""
    defaults = (None, [1, 1], [0, 0], [1, 1], 1)
    return (*node.args, *defaults[len(node.args) - 2 :])
