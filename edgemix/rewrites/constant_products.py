"""Matrix products with a constant → linear operators, whose weights are quantized as weights."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.contraction import Factor, constant_of, contract
from edgemix.rewrites.writer import Writer

_PRODUCTS = frozenset({aten.matmul.default, aten.bmm.default, aten.mm.default})


@dataclass(frozen=True)
class ConstantProducts:
    """``x @ W`` of a parameter W → ``linear(x, Wᵀ)``; ``W @ x`` → a convolution of width one.

    A W for every head, [h, k, n], is a convolution with h groups.
    """

    name: ClassVar[str] = "constant_products"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target in _PRODUCTS and node.meta["val"].is_floating_point():
                count += _open(Writer(module, node, self.name))
        return count


def _open(write: Writer) -> bool:
    nodes: list[Node] = list(write.at.args[:2])  # type: ignore[arg-type]
    values = [constant_of(write, node) for node in nodes]
    if (values[0] is None) == (values[1] is None):
        return False
    ndims = [node.meta["val"].ndim for node in nodes]
    lead = string.ascii_lowercase[: max(*ndims, 2) - 2]
    # Of vectors the one axis is the inner one; axes in front are aligned at their last.
    left = lead[len(lead) - max(ndims[0] - 2, 0) :] + ("MK" if ndims[0] > 1 else "K")
    right = lead[len(lead) - max(ndims[1] - 2, 0) :] + ("KN" if ndims[1] > 1 else "K")
    axes = lead + "".join(axis for axis in "MN" if axis in left + right)
    a, b = (Factor(*given) for given in zip(nodes, (left, right), values, strict=True))
    write.replace(contract(write, a, b, axes).node)
    return True
