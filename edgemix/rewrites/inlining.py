"""A graph inside of a graph, copied into the place of the node that calls it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g


def inline(module: GraphModule, at: Node, inner: GraphModule, given: Sequence[Any]) -> list[Node]:
    """Write a graph's nodes before one node of another graph.

    Args:
        module: the outer graph.
        at: its node.
        inner: the graph to copy; it stays as it is.
        given: a node of the outer graph for each of the inner one's arguments.

    Returns:
        A node of the outer graph for each result of the inner one.
    """
    arguments = iter(given)
    known: dict[Node, Any] = {}
    for old in inner.graph.nodes:
        if old.op == "placeholder":
            known[old] = next(arguments)
        elif old.op == "output":
            return [known[value] for value in old.args[0]]
        elif old.op == "get_attr" and not isinstance(getattr(inner, str(old.target)), GraphModule):
            known[old] = g.add_constant(module, at, old.name, g.constant(inner, old))
        else:
            with module.graph.inserting_before(at):
                new = module.graph.node_copy(old, known.__getitem__)
            if old.op == "get_attr":
                module.add_submodule(new.name, getattr(inner, str(old.target)))
                new.target = new.name
            known[old] = new
    raise AssertionError("a graph ends with its results")


def graph_of(module: GraphModule, held: Any) -> GraphModule:
    """The graph that a node of a graph stands for."""
    inner = module.get_submodule(str(held.target))
    assert isinstance(inner, GraphModule)
    return inner
