"""New nodes in the place of one that a rewrite takes apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.rewrites.base import inherit


@dataclass(frozen=True)
class Writer:
    """Writes calls before one node, each with its own shape and that node's origin."""

    module: GraphModule
    at: Node
    name: str
    """Of the rewrite."""

    def __call__(self, target: Any, *args: Any, **options: Any) -> Node:
        """A call; arguments may be lists of nodes."""
        with self.module.graph.inserting_before(self.at):
            new = g.call(self.module, target, *args, **options)
        return inherit(new, self.at, self.name)

    def constant(self, kind: str, value: Tensor) -> Node:
        """A constant that is named after the node."""
        return g.add_constant(self.module, self.at, f"{self.at.name}_{kind}", value)

    def replace(self, new: Node) -> None:
        """Let all readers of the node read another, and erase it."""
        self.at.replace_all_uses_with(new, propagate_meta=False)
        self.module.graph.erase_node(self.at)
