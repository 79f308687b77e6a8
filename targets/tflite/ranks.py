"""Real products that the converter gives the wrong rank (``tfl.batch_matmul``: expected 3, got 4).

Integer ones go another way through it.
"""

from __future__ import annotations

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten


def plain_ranks(module: GraphModule) -> None:
    """Write them in a rank that it keeps, in place.

    A linear operator on [a, b, 1, c], whose one row it drops from the operand and not from the
    result, reads a matrix [a · b, c]. A convolution of one tap on [n, c, l], which it makes one of
    an image and merges with a product in front, is a linear operator on [n, l, c].
    """
    for node in list(module.graph.nodes):
        if node.target is aten.linear.default and _is_single_row(node.args[0]):
            _flatten(module, node)
        if node.target is aten.conv1d.default and _has_one_tap(node):
            _as_linear(module, node)
    module.graph.lint()


def _is_single_row(source: object) -> bool:
    assert isinstance(source, Node)
    shape = g.shape_of(source)
    return not g.is_dequantize(source) and len(shape) > 3 and shape[-2] == 1


def _has_one_tap(node: Node) -> bool:
    source, weight = node.args[:2]
    assert isinstance(source, Node) and isinstance(weight, Node)
    plain = len(node.args) < 4 and not node.kwargs  # without stride, padding or groups
    return plain and not g.is_dequantize(source) and g.shape_of(weight)[2] == 1


def _as_linear(module: GraphModule, node: Node) -> None:
    source, weight, *bias = node.args
    graph = module.graph
    with graph.inserting_before(node):
        tokens = g.call(module, aten.transpose.int, source, 1, 2)
        matrix = g.call(module, aten.squeeze.dim, weight, 2)
        product = g.call(module, aten.linear.default, tokens, matrix, *bias)
        turned = g.call(module, aten.transpose.int, product, 1, 2)
    node.replace_all_uses_with(turned, propagate_meta=False)
    graph.erase_node(node)


def _flatten(module: GraphModule, node: Node) -> None:
    source = node.args[0]
    assert isinstance(source, Node)
    graph = module.graph
    with graph.inserting_before(node):
        rows = g.call(module, aten.reshape.default, source, [-1, g.shape_of(source)[-1]])
        product = g.call(module, aten.linear.default, rows, *node.args[1:])
        shaped = g.call(module, aten.reshape.default, product, list(g.shape_of(node)))
    node.replace_all_uses_with(shaped, propagate_meta=False)
    graph.erase_node(node)
