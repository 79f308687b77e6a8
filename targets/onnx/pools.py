"""Average pools between integers, as two float pools: over rows, then over columns.

ONNX Runtime's integer kernel takes fifteen times as long as its float pool: a third of all of
EfficientFormer's time. Neither of two pools stands between a dequantize and a quantize, so neither
becomes that kernel; the average is the same, in fewer sums.
"""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def separable_pools(module: GraphModule) -> int:
    """Rewrite in place; how many there were."""
    found = [n for n in module.graph.nodes if _is_separable(n)]
    for node in found:
        source = node.args[0]
        (rows, columns), (down, right), (top, left) = map(g.pair, _options(node)[:3])
        include = _options(node)[4]
        with module.graph.inserting_before(node):
            tall = module.graph.call_function(
                aten.avg_pool2d.default,
                (source, [rows, 1], [down, 1], [top, 0], False, include),
            )
            wide = module.graph.call_function(
                aten.avg_pool2d.default,
                (tall, [1, columns], [1, right], [0, left], False, include),
            )
        node.replace_all_uses_with(wide, propagate_meta=False)
        module.graph.erase_node(node)
    return len(found)


def _is_separable(node: Node) -> bool:
    if node.target is not aten.avg_pool2d.default or not g.is_dequantize(node.args[0]):
        return False
    kernel, _, _, ceil, _, divisor = _options(node)
    return min(g.pair(kernel)) > 1 and not ceil and divisor is None


def _options(node: Node) -> tuple[Any, ...]:
    """Kernel, stride, padding, ceil_mode, count_include_pad, divisor_override."""
    given = list(node.args[1:])
    names = ("stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    defaults = dict(zip(names, (given[0], 0, False, True, None), strict=True))
    values = [node.kwargs.get(name, default) for name, default in defaults.items()]
    found = [*given, *values[len(given) - 1 :]]
    return (found[0], found[1] or found[0], *found[2:])
