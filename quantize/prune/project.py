"""Fitting weights that stay from what the whole model read: for programs with states.

A step's result depends on all steps before, so a small program cannot be fitted layer after layer
beside the whole one. Each layer then takes what the whole model's states give it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.program import Program, Step
from edgemix.quantize.prune.axes import Units
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.lockstep import owns_weights
from edgemix.quantize.prune.observe import Observation, Reader

_DAMPING = 0.01


def project(
    whole: Program, small: Program, units: Units, keep: Keep, found: Observation
) -> Program:
    """The pruned program, every layer's weights those of least error on the whole one's inputs.

    Args:
        whole: before pruning.
        small: after it: the same operators.
        units: of the whole program.
        keep: which of them stayed.
        found: what the whole program's layers read.
    """
    before = [n for n in whole.shared.graph.nodes if n.op == "call_function"]
    module = small.module()
    after = [n for n in module.graph.nodes if n.op == "call_function"]
    parts: dict[str, list[Reader]] = {}
    for reader in found.readers:
        parts.setdefault(reader.node, []).append(reader)
    for old, new in zip(before, after, strict=True):
        if old.name in parts and owns_weights(new):
            _fit(module, new, parts[old.name], units.constants[_weight(old)], keep)
    return small.with_module(module, Step("refit", {"on": "the whole model's states"}))


def _weight(node: Node) -> str:
    weight: Any = node.args[1]
    return str(weight.target)


def _fit(module: Any, node: Node, parts: list[Reader], axes: Any, keep: Keep) -> None:
    weight: Any = node.args[1]
    bias: Any = node.args[2] if len(node.args) > 2 else None
    now = g.constant(module, weight)
    inner = np.repeat(keep[axes[1]], parts[0].weight.shape[1] // len(axes[1]))
    outer = keep[axes[0]].reshape(len(parts), -1)
    fitted: list[Tensor] = []
    shifts: list[Tensor] = []
    for reader, rows in zip(parts, outer, strict=True):
        if not rows.any():  # a group that went with its channels
            continue
        stays = torch.from_numpy(np.flatnonzero(inner))
        wanted = reader.weight[torch.from_numpy(np.flatnonzero(rows))].double()
        covariance, mean = reader.covariance.double(), reader.mean.double()
        if bias is None:  # nothing takes the means: they are fitted, too
            covariance = covariance + mean[:, None] * mean[None, :]
        inside = covariance[stays][:, stays]
        ridge = _DAMPING * inside.diagonal().mean().clamp(min=1e-12)
        pulled = wanted @ covariance[:, stays] + ridge * wanted[:, stays]
        eye = torch.eye(len(stays), dtype=torch.float64)
        made = torch.linalg.solve(inside + ridge * eye, pulled.T).T
        fitted.append(made)
        shifts.append(wanted @ mean - made @ mean[stays])
    g.set_constant(module, str(weight.target), torch.cat(fitted).reshape(now.shape).to(now.dtype))
    if bias is not None:
        old = g.constant(module, bias)
        g.set_constant(module, str(bias.target), old + torch.cat(shifts).to(old.dtype))
