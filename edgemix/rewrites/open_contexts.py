"""``with torch.autocast(enabled=False)``, ``with torch.no_grad()`` → what stands under them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.errors import UnsupportedError
from edgemix.rewrites.inlining import graph_of, inline

_AUTOCAST = torch.ops.higher_order.wrap_with_autocast
_GRADIENTS = torch.ops.higher_order.wrap_with_set_grad_enabled
_ARGUMENTS: dict[Any, int] = {_AUTOCAST: 4, _GRADIENTS: 1}
"""Where the graph under the context stands among the arguments; behind it come its inputs."""


@dataclass(frozen=True)
class OpenContexts:
    """A call of a graph under a context that changes no number becomes that graph's nodes."""

    name: ClassVar[str] = "open_contexts"

    def apply(self, module: GraphModule) -> int:
        """Open them all, those inside of others too; returns how many there were.

        Raises:
            UnsupportedError: an autocast that is on, whose types depend on the device.
        """
        count = 0
        while found := [n for n in module.graph.nodes if n.target in _ARGUMENTS]:
            for node in found:
                _refuse(node)
                _open(module, node)
            count += len(found)
        return count


def _refuse(node: Node) -> None:
    if node.target is _AUTOCAST and node.args[2] and node.args[0] == "cpu":
        raise UnsupportedError(
            f"an autocast to {node.args[1]} is on, whose types no target knows",
            at=str(g.where(node)),
            do="trace the model outside of torch.autocast, and choose a recipe for its types",
        )


def _open(module: GraphModule, node: Node) -> None:
    at = _ARGUMENTS[node.target]
    held: Any = node.args[at]
    found = inline(module, node, graph_of(module, held), node.args[at + 1 :])
    _read_instead(node, found)
    module.graph.erase_node(node)
    if not held.users:
        module.graph.erase_node(held)


def _read_instead(node: Node, values: list[Node]) -> None:
    for item in list(node.users):
        assert item.target is operator.getitem
        item.replace_all_uses_with(values[item.args[1]], propagate_meta=False)  # type: ignore[index]
        node.graph.erase_node(item)
