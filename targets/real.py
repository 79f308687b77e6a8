"""Operators between integers that compute faster in float: what keeps runtimes from fusing them.

A converter makes an integer kernel of an operator that stands between a dequantize and a quantize.
A step in between that is neutral in real numbers keeps it from that, and changes no value.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten

_POOLS = frozenset({aten.avg_pool1d.default, aten.avg_pool2d.default})


def pools(module: GraphModule) -> int:
    """Average in float, in place, as half of the average of twice the values; returns how many.

    ONNX Runtime's integer pool takes fifteen times as long as its float pool; LiteRT's asks one
    scale of both its ends, and runs outside of XNNPACK.
    """
    count = 0
    for node in list(module.graph.nodes):
        if node.target not in _POOLS or not g.is_dequantize(node.args[0]):
            continue
        feed(module, node, node.args[0], aten.mul.Tensor, 2.0)
        with module.graph.inserting_after(node):
            half = module.graph.call_function(aten.mul.Tensor, (node, 0.5))
        node.replace_all_uses_with(half, lambda reader, half=half: reader is not half)
        count += 1
    return count


def feed(module: GraphModule, node: Node, source: Any, target: Any, number: float) -> None:
    """Let a reader of a value read ``target(value, number)``, in place."""
    with module.graph.inserting_before(node):
        moved = module.graph.call_function(target, (source, number))
    node.replace_input_with(source, moved)
