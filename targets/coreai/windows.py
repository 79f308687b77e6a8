"""Average pooling whose windows reach over the border.

coreai-torch's converter divides every sum by the kernel's size, whatever the call says of padding
that does not count, and has no windows that start inside and end outside.
"""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.nn import functional

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.targets.decompositions import both_axes


def open_windows(module: GraphModule) -> None:
    """avg_pool → pad → sum of every window → divide by what torch divides by, in place."""
    for node in list(module.graph.nodes):
        if node.target is aten.avg_pool1d.default:
            _open(module, _of_rows(module, node))
        elif node.target is aten.avg_pool2d.default and _reaches_over(node):
            _open(module, node)


def _reaches_over(node: Node) -> bool:
    """Whether there is padding, or a size that the windows do not divide (``ceil_mode``)."""
    _, _, padding, ceil = _geometry(node)
    return any(padding) or ceil


def _of_rows(module: GraphModule, node: Node) -> Node:
    """A pooling along one axis as one of an image that is a row high."""
    source = node.args[0]
    assert isinstance(source, Node)
    kernel, stride, padding, ceil, counts = (*node.args[1:], None, None, None, None)[:5]
    sizes = ([1, *kernel], [1, *(stride or kernel)], [0, *(padding or [0])])  # type: ignore[misc]
    graph = module.graph
    with graph.inserting_before(node):
        image = graph.call_function(aten.unsqueeze.default, (source, -2))
        pooled = graph.call_function(
            aten.avg_pool2d.default, (image, *sizes, bool(ceil), counts is not False)
        )
        row = graph.call_function(aten.squeeze.dim, (pooled, -2))
    for new, old in ((image, source), (pooled, node)):
        new.meta["val"] = old.meta["val"].unsqueeze(-2)
    node.replace_all_uses_with(row)
    graph.erase_node(node)
    return pooled


def _open(module: GraphModule, node: Node) -> None:
    (source,) = node.all_input_nodes
    kernel, stride, padding, _ = _geometry(node)
    size, found = g.shape_of(source)[-2:], g.shape_of(node)[-2:]
    # As far as the last window reaches; none is cut off where it ends before the image does.
    (above, below), (left, right) = (
        (padding[i], max((found[i] - 1) * stride[i] + kernel[i] - size[i] - padding[i], 0))
        for i in (0, 1)
    )
    pads = [left, right, above, below]
    windows = (kernel, stride, [0, 0], False, True, 1)
    image = torch.ones(1, 1, *size)
    cells = aten.avg_pool2d.default(functional.pad(image, pads), *windows)
    divisors = cells / aten.avg_pool2d.default(image, *node.args[1:])
    graph = module.graph
    behind = g.add_constant(module, node, f"{node.name}_divisors", divisors.round())
    with graph.inserting_before(node):
        padded = graph.call_function(aten.constant_pad_nd.default, (source, pads, 0.0))
        summed = graph.call_function(aten.avg_pool2d.default, (padded, *windows))
        mean = graph.call_function(aten.div.Tensor, (summed, behind))
    mean.meta = dict(node.meta)
    node.replace_all_uses_with(mean)
    graph.erase_node(node)


def _geometry(node: Node) -> tuple[list[int], list[int], list[int], bool]:
    """Kernel, stride and padding of both axes, and whether sizes are rounded up."""
    given: Any = (*node.args[1:5], None, None, None)
    kernel, stride, padding, ceil = given[:4]
    sizes = both_axes(kernel)
    return sizes, both_axes(stride or sizes), both_axes(padding or [0]), bool(ceil)
