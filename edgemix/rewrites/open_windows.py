"""``x.unfold(axis, size, step)``, sliding windows as a view of memory → slices, joined."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class OpenWindows:
    """[…, l, …] → […, n, …, size]: as many slices as there are windows, or places in a window.

    Windows may overlap, as those of HaloNet do; no runtime has such a view.
    """

    name: ClassVar[str] = "open_windows"

    def apply(self, module: GraphModule) -> int:
        """Open them all; returns how many there were."""
        found = module.graph.find_nodes(op="call_function", target=aten.unfold.default)
        for node in found:
            _open(Writer(module, node, self.name), node)
        return len(found)


def _open(write: Writer, node: Node) -> None:
    source, axis, size, step = _arguments(node)
    shape = list(g.shape_of(node))
    axis %= len(shape) - 1
    windows = shape[axis]
    if windows <= size:
        bounds = [(i * step, i * step + size, 1) for i in range(windows)]
        parted, inner = [windows, size], axis + 1
    else:
        last = (windows - 1) * step + 1
        bounds = [(k, k + last, step) for k in range(size)]
        parted, inner = [size, windows], axis
    parts = [
        write(aten.slice.Tensor, source, axis, start, end, stride) for start, end, stride in bounds
    ]
    joined = write(aten.cat.default, parts, axis) if len(parts) > 1 else parts[0]
    wide = write(aten.reshape.default, joined, [*shape[:axis], *parted, *shape[axis + 1 : -1]])
    order = [i for i in range(len(shape)) if i != inner]
    write.replace(write(aten.permute.default, wide, [*order, inner]))


def _arguments(node: Node) -> tuple[Any, int, int, int]:
    source, axis, size, step = node.args
    return source, int(axis), int(size), int(step)  # type: ignore[arg-type]
