"""unbind, chunk and split → select and slice: every value gets a node of its own."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import inherit

_SPLIT = (aten.chunk.default, aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes)


@dataclass(frozen=True)
class UnpackViews:
    """Replace each ``getitem`` of an unbind, chunk or split; drop dropout and other no-ops."""

    name: ClassVar[str] = "unpack_views"

    def apply(self, module: GraphModule) -> int:
        """Unpack them all; returns how many values were given a node of their own."""
        graph = module.graph
        count = 0
        for node in list(graph.nodes):
            if node.target is aten.dropout.default or node.target is aten.detach.default:
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
                count += 1
            elif node.target is operator.getitem and isinstance(node.args[0], Node):
                count += self._unpack(module, node)
        return count

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
            new = inherit(module.graph.call_function(target, args), item, self.name)
        item.replace_all_uses_with(new)
        module.graph.erase_node(item)
        return 1
