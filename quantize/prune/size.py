"""What a program costs with some of its units gone: multiply-accumulates and weights."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch.fx import Node

from edgemix import graph as g
from edgemix.program import Program
from edgemix.quantize.prune.axes import Axes, Units
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.rules import arguments

Counted = Literal["macs", "parameters"]
VALUE = 16.0
"""What computing a value costs a vector unit that is fed from memory, in multiply-accumulates."""


@dataclass(frozen=True)
class Terms:
    """A sum of products of widths: each term multiplies the indices that its axes keep."""

    widths: npt.NDArray[np.float64]
    """How often each unit stands in each distinct axis: [axes, units + 1]."""
    terms: tuple[tuple[tuple[int, ...], float], ...]
    """The axes that a term multiplies, and by what number."""

    def total(self, keep: Keep) -> float:
        """With these units kept."""
        left = self.widths @ keep
        return float(sum(math.prod(left[list(axes)]) * factor for axes, factor in self.terms))

    def slopes(self, keep: Keep) -> npt.NDArray[np.float64]:
        """What each unit alone adds to the total: [units + 1]."""
        left = self.widths @ keep
        each = np.zeros(len(left))
        for axes, factor in self.terms:
            for i, axis in enumerate(axes):
                others = [left[a] for j, a in enumerate(axes) if j != i]
                each[axis] += factor * math.prod(others)
        found: npt.NDArray[np.float64] = each @ self.widths
        return found


def work(program: Program, units: Units) -> Terms:
    """About the time that a program takes: its multiply-accumulates, and the values it computes.

    A width that many values lie along saves more than its products say: norms, activations and
    sums read and write each of them.
    """
    terms = []
    for node in program.shared.graph.nodes:
        if node.target in g.PRODUCT:
            terms.append(_macs(node, units))
        if node.op == "call_function" and node.target not in g.VIEW and units.axes[node.name]:
            terms.append((units.axes[node.name], VALUE))
    return _terms(units, terms)


def count(program: Program, units: Units, counted: Counted) -> Terms:
    """A program's multiply-accumulates, or its weights, as a function of what is kept."""
    module = program.shared
    if counted == "macs":
        products = [_macs(node, units) for node in module.graph.nodes if node.target in g.PRODUCT]
    else:
        products = [(axes, 1.0) for axes in units.constants.values()]
    return _terms(units, products)


def _terms(units: Units, products: Sequence[tuple[Axes, float]]) -> Terms:
    arrays: dict[bytes, int] = {}
    rows: list[npt.NDArray[np.float64]] = []
    terms = []
    for axes, factor in products:
        taken = []
        for axis in axes:
            if not axis.any():
                factor *= len(axis)
                continue
            key = axis.tobytes()
            if key not in arrays:
                arrays[key] = len(rows)
                rows.append(np.bincount(axis, minlength=units.count + 1).astype(np.float64))
            taken.append(arrays[key])
        terms.append((tuple(taken), factor))
    widths = np.stack(rows) if rows else np.zeros((0, units.count + 1))
    return Terms(widths, tuple(terms))


def _macs(node: Node, units: Units) -> tuple[Axes, float]:
    first, second = (units.axes[a.name] for a in arguments(node)[:2])
    result = units.axes[node.name]
    if node.target in g.MATRIX_PRODUCT:
        return (*result, first[-1]), 1.0
    taken: Any = second[1:]
    return (*result, *taken), 1.0
