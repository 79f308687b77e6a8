"""Assertions about types that the export left in the graph: none of them computes anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from edgemix.graph import aten


@dataclass(frozen=True)
class DropChecks:
    """``_assert_tensor_metadata(x)`` → nothing."""

    name: ClassVar[str] = "drop_checks"

    def apply(self, module: GraphModule) -> int:
        """Remove them all; returns how many there were."""
        checks = module.graph.find_nodes(
            op="call_function", target=aten._assert_tensor_metadata.default
        )
        for node in checks:
            module.graph.erase_node(node)
        return len(checks)
