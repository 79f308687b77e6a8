"""Casts without the assertions that the export puts beside them: those compute nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from edgemix.graph import aten

_CASTS = frozenset(
    {aten.to.device, aten.to.dtype, aten.to.dtype_layout, aten.to.other, aten.type_as.default}
)


@dataclass(frozen=True)
class PlainCasts:
    """``_assert_tensor_metadata(x)``, ``x.to(dtype)`` → ``_to_copy(x, dtype=dtype)``.

    Devices are no matter. As ``to`` every export of the graph would add the assertion again.
    """

    name: ClassVar[str] = "plain_casts"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target is aten._assert_tensor_metadata.default:
                module.graph.erase_node(node)
                count += 1
            elif node.target in _CASTS and "memory_format" not in node.kwargs:
                node.target, node.kwargs = aten._to_copy.default, {"dtype": node.meta["val"].dtype}
                node.args = node.args[:1]
                count += 1
        return count
