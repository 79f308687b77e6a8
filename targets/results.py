"""What a graph gives, a node each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.fx import Graph, GraphModule, Node

Again = Callable[[Graph, Node], Node]
"""A node that has the value of another, and which the converter does not take for the other."""


def own_results(module: GraphModule, again: Again) -> None:
    """A node of its own for everything that the graph gives: converters tell them by name."""
    (output,) = module.graph.find_nodes(op="output")
    given: Any = output.args[0]
    results = list(given) if isinstance(given, (tuple, list)) else [given]
    with module.graph.inserting_before(output):
        for i, node in enumerate(results):
            if node in results[:i] or node.op == "placeholder":
                results[i] = again(module.graph, node)
    output.args = (tuple(results) if isinstance(given, (tuple, list)) else results[0],)
