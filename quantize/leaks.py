"""Leaks as shifts: λ = 2⁻ᵏ costs no multiplier, and keeps its value in any number of bits."""

from __future__ import annotations

import time

import torch
from torch.fx import Node

from edgemix import graph as g
from edgemix.program import Program, Step


def shift_leaks(program: Program, tolerance: float) -> Program:
    """Round every leak to the nearest power of two where that changes it by little.

    A leak is a constant between 0 and 1 by which a state is multiplied on the way to its next
    value; ``v · β`` with β above a half is one of 1 − β by then, see the rewrite ``split_leak``.

    Args:
        program: a float program; one without states comes back as it is.
        tolerance: the largest change of a leak that is taken, as a share of it.
    """
    if not program.states or tolerance == 0.0:
        return program
    start = time.perf_counter()
    module = program.module()
    rounded = total = 0
    count = len(program.states)
    for node in dict.fromkeys([*g.integrating(module, count), *_lost(module, count)]):
        constant = _constant(node)
        if constant is None:
            continue
        value = g.constant(module, constant)
        if not bool(((value > 0) & (value < 1)).all()):
            continue
        shift = torch.exp2(torch.log2(value).round())
        near = (shift - value).abs() <= tolerance * value
        total += value.numel()
        if bool((near & (shift != value)).any()):
            rounded += int((near & (shift != value)).sum())
            name = f"{node.name}_shift"
            module.register_buffer(name, torch.where(near, shift, value))
            with module.graph.inserting_before(node):
                new = module.graph.get_attr(name)
            new.meta["val"] = value
            node.replace_input_with(constant, new)
    if rounded == 0:
        return program
    options = {"tolerance": tolerance, "rounded": rounded, "leaks": total}
    seconds = round(time.perf_counter() - start, 3)
    return program.with_module(module, Step("shift leaks", options, seconds))


def _lost(module: torch.fx.GraphModule, states: int) -> list[Node]:
    """The products that are taken off a state: they lie beside the way, not on it."""
    given = {a for a, _ in g.fed_back(module, states)}
    return [
        n
        for n in module.graph.nodes
        if n.target is g.aten.mul.Tensor and any(a in given for a in n.args[:2])
    ]


def _constant(node: Node) -> Node | None:
    if node.target is not g.aten.mul.Tensor:
        return None
    found = [a for a in node.args[:2] if isinstance(a, Node) and a.op == "get_attr"]
    return found[0] if len(found) == 1 else None
