"""Vectors over their lengths → root mean square norms, which every target has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

_MAX_EPSILON = 1e-6
"""Above this, vectors of ordinary lengths would tell the larger of two from their sum."""


@dataclass(frozen=True)
class JoinLengths:
    """``x / max(|x|, ε)`` → ``rms_norm(x, γ = 1/√n, ε²/n)``, which is ``x / √(|x|² + ε²)``.

    What ``torch.nn.functional.normalize`` exports. A length in eight bits is zero for a short
    vector, and integer kernels refuse to divide by it; a norm as a whole has no such value inside,
    and firmware has the steps of a norm.
    """

    name: ClassVar[str] = "join_lengths"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            axis = _axis(node)
            if axis is not None:
                _replace(Writer(module, node, self.name), *axis)
                count += 1
        if count:
            module.graph.eliminate_dead_code()
        return count


def _axis(node: Node) -> tuple[int, float] | None:
    """Of a vector over its length: along which axis it lies, and ε."""
    if node.target is not aten.div.Tensor or not isinstance(node.args[1], Node):
        return None
    vector, length = node.args[:2]
    if length.target is aten.expand.default:  # type: ignore[union-attr]
        length = length.args[0]  # type: ignore[union-attr]
    limit: Any = 0.0
    if isinstance(length, Node) and length.target in (aten.clamp_min.default, aten.clamp.default):
        if len(length.args) != 2:
            return None
        length, limit = length.args
    if not isinstance(length, Node) or length.target is not aten.linalg_vector_norm.default:
        return None
    given = [*length.args, *(None, 2, None, False)[len(length.args) :]]
    source, order, axes, keeps = given
    whole = isinstance(axes, (list, tuple)) and len(axes) == 1 and keeps
    if source is not vector or order != 2 or not whole or not 0 <= limit <= _MAX_EPSILON:
        return None
    return int(axes[0]) % len(g.shape_of(node)), float(limit)  # type: ignore[index,arg-type]


def _replace(write: Writer, axis: int, epsilon: float) -> None:
    x: Any = write.at.args[0]
    shape = g.shape_of(x)
    count, last = shape[axis], len(shape) - 1
    gamma = torch.full((count,), 1 / math.sqrt(count), dtype=x.meta["val"].dtype)
    turned = x if axis == last else write(aten.transpose.int, x, axis, last)
    scale = write.constant("scale", gamma)
    found = write(aten.rms_norm.default, turned, [count], scale, epsilon**2 / count)
    write.replace(found if axis == last else write(aten.transpose.int, found, axis, last))
