"""Python numbers in arithmetic → constant tensors, so that they are quantized like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten

_ARITHMETIC = (
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.rsub.Scalar,
)  # fmt: skip


@dataclass(frozen=True)
class LiftScalars:
    """``x * 0.25`` → ``x * c`` with a constant c of one element.

    ``x / 4`` becomes a product too, ``1 - x`` the difference ``c - x``.
    """

    name: ClassVar[str] = "lift_scalars"

    def apply(self, module: GraphModule) -> int:
        """Lift them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target not in _ARITHMETIC or not isinstance(node.args[1], (int, float)):
                continue
            reverse = node.target is aten.rsub.Scalar
            if not node.meta["val"].is_floating_point() or (reverse and _alpha(node) != 1):
                continue
            value = float(node.args[1]) * _alpha(node)
            if node.target is aten.div.Tensor:
                value, node.target = 1.0 / value, aten.mul.Tensor
            scalar = g.add_constant(module, node, f"{node.name}_scalar", torch.tensor([value]))
            node.args, node.kwargs = (node.args[0], scalar), {}
            if reverse:
                node.target, node.args = aten.sub.Tensor, (scalar, node.args[0])
            count += 1
        return count


def _alpha(node: Node) -> float:
    """The factor of one operand; in a reversed difference, of the tensor."""
    given = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    assert isinstance(given, (int, float))
    return float(given)
