"""Linear operators over single rows, whose product the converter gives the wrong rank."""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def flat_rows(module: GraphModule) -> None:
    """Give real linear operators on [a, b, 1, c] a matrix [a · b, c], in place.

    The converter drops the axis of one row from the operand and keeps it in the result
    (``tfl.batch_matmul``: expected 3 but got 4). Integer ones go another way through it.
    """
    for node in list(module.graph.nodes):
        if node.target is aten.linear.default and _is_single_row(node.args[0]):
            _flatten(module, node)
    module.graph.lint()


def _is_single_row(source: object) -> bool:
    assert isinstance(source, Node)
    shape = g.shape_of(source)
    return not g.is_dequantize(source) and len(shape) > 3 and shape[-2] == 1


def _flatten(module: GraphModule, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    graph = module.graph
    with graph.inserting_before(node):
        rows = graph.call_function(aten.reshape.default, (source, [-1, g.shape_of(source)[-1]]))
        product = graph.call_function(aten.linear.default, (rows, *node.args[1:]))
        shaped = graph.call_function(aten.reshape.default, (product, list(g.shape_of(node))))
    node.replace_all_uses_with(shaped, propagate_meta=False)
    graph.erase_node(node)
