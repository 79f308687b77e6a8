"""Comparisons of places, from which the converter makes an operator that it then refuses."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def plain_comparisons(module: GraphModule) -> None:
    """``a == b`` of whole numbers → ``a - b == 0``, in place.

    Compared with a count, they become ``tfl.one_hot``, and of what follows in integers the
    numbers that it puts in: it takes no quantized ones.
    """
    for node in module.graph.find_nodes(op="call_function", target=aten.eq.Tensor):
        terms = node.args[:2]
        if any(not isinstance(t, Node) or t.meta["val"].is_floating_point() for t in terms):
            continue
        with module.graph.inserting_before(node):
            apart = g.call(module, aten.sub.Tensor, *terms)
            same = g.call(module, aten.eq.Scalar, apart, 0)
        node.replace_all_uses_with(same, propagate_meta=False)
        module.graph.erase_node(node)
