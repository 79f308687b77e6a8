"""Python numbers in arithmetic → constant tensors, so that they are quantized like any other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.base import add_constant

_ARITHMETIC = (
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.rsub.Scalar,
)  # fmt: skip


@dataclass(frozen=True)
class LiftScalars:
    """``x * 0.25`` → ``x * c`` with a constant c of one element; ``x / 4`` → ``x * c`` and ``1 - x`` → ``c - x`` too."""

    name: ClassVar[str] = "lift_scalars"

    def apply(self, module: GraphModule) -> int:
        """Lift them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target not in _ARITHMETIC or not isinstance(node.args[1], (int, float)):
                continue
            if not node.meta["val"].is_floating_point():
                continue
            value, alpha = float(node.args[1]), _alpha(node)
            if node.target is aten.rsub.Scalar:
                if alpha != 1:
                    continue
                scalar = add_constant(module, node, f"{node.name}_scalar", torch.tensor([value]))
                node.target, node.args, node.kwargs = aten.sub.Tensor, (scalar, node.args[0]), {}
                count += 1
                continue
            value *= alpha
            if node.target is aten.div.Tensor:
                value, node.target = 1.0 / value, aten.mul.Tensor
            scalar = add_constant(module, node, f"{node.name}_scalar", torch.tensor([value]))
            node.args, node.kwargs = (node.args[0], scalar), {}
            count += 1
        return count


def _alpha(node: Node) -> float:
    """The factor of the second operand (of the first, for a reversed difference)."""
    given = node.args[2] if len(node.args) > 2 else node.kwargs.get("alpha", 1)
    assert isinstance(given, (int, float))
    return float(given)
