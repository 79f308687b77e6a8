"""Domains: a saturating function's input needs no range where the function says the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.quantize.draft import Draft
from edgemix.quantize.params import encode

SATURATING: dict[object, Callable[[Tensor], Tensor]] = {
    aten.gelu.default: torch.nn.functional.gelu,
    aten.silu.default: torch.nn.functional.silu,
    aten.sigmoid.default: torch.sigmoid,
    aten.tanh.default: torch.tanh,
    aten.hardsigmoid.default: torch.nn.functional.hardsigmoid,
    aten.hardswish.default: torch.nn.functional.hardswish,
    aten.relu6.default: torch.nn.functional.relu6,
}
_FLAT = 0.5
"""Of the result's step: what is cut may change it by no more."""


def cut_domains(draft: Draft) -> Draft:
    """The draft with the ranges of saturating functions' inputs cut to where these still move.

    GELU is within half a step of 0 below −2 or so, however far down its inputs go: the range that
    is saved makes the steps of all others finer. Uses no data.
    """
    module = draft.program.shared
    encodings = dict(draft.plan.encodings)
    members: dict[str, list[str]] = {}
    for name, root in draft.plan.groups.items():
        members.setdefault(root, []).append(name)
    nodes = {n.name: n for n in module.graph.nodes}
    for root, names in members.items():
        rule = draft.plan.rules.get(root)
        functions = _readers([nodes[n] for n in names])
        if rule is None or rule.symmetric or functions is None:
            continue
        low, high = encodings[names[0]].limits
        for function in functions:
            result = encodings.get(function.name)
            if result is None:
                break
            lo, hi = _moving(SATURATING[function.target], low, high, result.lsb)
            low, high = max(low, lo), min(high, hi)
        else:
            cut = encode((low, high), rule)
            if cut.lsb < encodings[names[0]].lsb:
                encodings |= dict.fromkeys(names, cut)
    return replace(draft, plan=replace(draft.plan, encodings=encodings))


def _readers(group: list[Node]) -> list[Node] | None:
    """The saturating functions that read a group, if nothing else does."""
    found = []
    for node in group:
        for user in node.users:
            if user.target in SATURATING:
                found.append(user)
            elif user not in group or user.target not in g.REORDERING:
                return None
    return found or None


def _moving(
    function: Callable[[Tensor], Tensor], low: float, high: float, step: float
) -> tuple[float, float]:
    """The part of [low, high] outside which a function stays within half a step of its ends."""
    x = torch.linspace(low, high, 4096, dtype=torch.float64)
    y = function(x)
    # From an end inwards: as long as everything passed so far is near what lies ahead.
    from_left = torch.cummax(y, 0).values - torch.cummin(y, 0).values
    from_right = (torch.cummax(y.flip(0), 0).values - torch.cummin(y.flip(0), 0).values).flip(0)
    left = int((from_left <= _FLAT * step).sum()) - 1
    right = len(x) - int((from_right <= _FLAT * step).sum())
    lo = float(x[max(left, 0)])
    hi = float(x[min(right, len(x) - 1)])
    return (lo, hi) if lo < hi else (low, high)
