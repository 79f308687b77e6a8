"""``einsum`` → linear operators, matrix products and sums."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from edgemix.graph import aten
from edgemix.rewrites.contraction import Factor, alone, constant_of, contract
from edgemix.rewrites.writer import Writer


@dataclass(frozen=True)
class EinsumProducts:
    """Σ over the axes that the result lacks, two factors at a time, from left to right.

    What a quantizer knows of an operator (its weights, the grid of its sums) it knows of linear
    operators and matrix products, see :func:`edgemix.rewrites.contraction.contract`. An axis twice
    in one factor, a diagonal, stays what it is.
    """

    name: ClassVar[str] = "einsum_products"

    def apply(self, module: GraphModule) -> int:
        """Replace them all; returns how many there were."""
        count = 0
        for node in module.graph.find_nodes(op="call_function", target=aten.einsum.default):
            count += _open(Writer(module, node, self.name))
        return count


def _open(write: Writer) -> bool:
    node = write.at
    equation, operands = str(node.args[0]), list(node.args[1])  # type: ignore[arg-type]
    parsed = _axes(equation, [x.meta["val"].ndim for x in operands])
    if parsed is None or not node.meta["val"].is_floating_point():
        return False
    letters, wanted = parsed
    path: Any = node.kwargs.get("path")
    factors = [_factor(write, x, axes) for x, axes in zip(operands, letters, strict=True)]
    pairs = [(0, 1)] * (len(factors) - 1) if path is None else _pairs(path)
    for left, right in pairs:
        a, b = factors[left], factors[right]
        rest = [f for i, f in enumerate(factors) if i not in (left, right)]
        needed = wanted + "".join(f.axes for f in rest)
        axes = (
            wanted
            if not rest
            else "".join(dict.fromkeys(x for x in a.axes + b.axes if x in needed))
        )
        found = _product(write, a, b, axes)
        factors = [*rest, found] if path is not None else [found, *rest]
    (found,) = factors
    write.replace(alone(write, found, wanted).node)
    return True


def _product(write: Writer, a: Factor, b: Factor, axes: str) -> Factor:
    if a.value is None or b.value is None:
        return contract(write, a, b, axes)
    value = torch.einsum(f"{a.axes},{b.axes}->{axes}", a.value, b.value).contiguous()
    return Factor(write.constant("product", value), axes, value)


def _factor(write: Writer, node: Node, axes: str) -> Factor:
    return Factor(node, axes, constant_of(write, node))


def _pairs(path: list[int]) -> list[tuple[int, int]]:
    return list(zip(path[::2], path[1::2], strict=True))


def _axes(equation: str, ndims: list[int]) -> tuple[list[str], str] | None:
    """A letter for every axis of each factor, and those of the result; None with a diagonal."""
    given, arrow, wanted = equation.replace(" ", "").partition("->")
    terms = given.split(",")
    if not arrow:
        plain = given.replace(",", "").replace("...", "")
        wanted = "..." + "".join(sorted(x for x in set(plain) if plain.count(x) == 1))
    unused = [x for x in string.ascii_letters if x not in equation]
    most = max(n - len(t.replace("...", "")) for n, t in zip(ndims, terms, strict=True))
    dots = "".join(unused[:most])
    # Axes that dots stand for are aligned at their last.
    opened = [
        t.replace("...", dots[len(dots) - (n - len(t.replace("...", ""))) :] if "..." in t else "")
        for n, t in zip(ndims, terms, strict=True)
    ]
    if any(len(set(t)) < len(t) for t in opened):
        return None
    return opened, wanted.replace("...", dots)
