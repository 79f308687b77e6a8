"""unbind, chunk, split, stack → select, slice, cat: a node for every value."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import inherit, step

_SPLIT = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes)


@dataclass(frozen=True)
class UnpackViews:
    """Replace each ``getitem`` of an unbind, chunk or split, and each stack."""

    name: ClassVar[str] = "unpack_views"

    def apply(self, module: GraphModule) -> int:
        """Unpack them all; returns how many values were given a node of their own."""
        graph = module.graph
        count = 0
        for node in list(graph.nodes):
            if node.target is aten.stack.default:
                self._join(node)
                count += 1
            elif node.target is operator.getitem and isinstance(node.args[0], Node):
                count += self._unpack(module, node)
        return count

    def _join(self, node: Node) -> None:
        parts: Any = node.args[0]
        axis = int(node.args[1]) if len(node.args) > 1 else 0  # type: ignore[arg-type]
        with node.graph.inserting_before(node):
            rows = [step(node, self.name, aten.unsqueeze.default, p, axis) for p in parts]
            joined = inherit(
                node.graph.call_function(aten.cat.default, (rows, axis)), node, self.name
            )
        joined.meta["val"] = node.meta["val"]
        node.replace_all_uses_with(joined, propagate_meta=False)
        node.graph.erase_node(node)

    def _unpack(self, module: GraphModule, item: Node) -> int:
        source, index = item.args
        assert isinstance(source, Node) and isinstance(index, int)
        if source.target is aten.unbind.int:
            dim = source.args[1] if len(source.args) > 1 else 0
            target: Any = aten.select.int
            args: tuple[Any, ...] = (source.args[0], dim, index)
        elif source.target in _SPLIT:
            dim = source.args[2] if len(source.args) > 2 else source.kwargs.get("dim", 0)
            assert isinstance(dim, int)
            sizes = [int(piece.shape[dim]) for piece in source.meta["val"]]
            start = sum(sizes[:index])
            target = aten.slice.Tensor
            args = (source.args[0], dim, start, start + sizes[index])
        else:
            return 0
        with module.graph.inserting_before(item):
            new = step(item, self.name, target, *args)
        item.replace_all_uses_with(new)
        module.graph.erase_node(item)
        return 1
