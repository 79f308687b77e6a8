"""Pools that say how far their windows move: Core ML's converter knows no default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from edgemix.graph import aten

_POOLS = (
    aten.max_pool1d.default, aten.max_pool2d.default,
    aten.avg_pool1d.default, aten.avg_pool2d.default,
)  # fmt: skip


@dataclass(frozen=True)
class ImplicitStrides:
    """``max_pool2d(x, k)`` → ``max_pool2d(x, k, k)``."""

    name: ClassVar[str] = "implicit_strides"

    def apply(self, module: GraphModule) -> int:
        """Write them all down; returns how many there were."""
        count = 0
        for node in module.graph.nodes:
            if node.target in _POOLS and (len(node.args) < 3 or node.args[2] in ([], None)):
                node.args = (*node.args[:2], node.args[1], *node.args[3:])
                count += 1
        return count
