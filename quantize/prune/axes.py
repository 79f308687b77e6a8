"""Which indices of a program's tensors can only go together.

Every axis of every value carries the *unit* of each of its indices. Indices of one unit are there
together or not at all: an output channel of a convolution, the gain and bias of the norm behind it,
the same channel of a residual sum, and the input channel of all who read it. Unit 0 stays for good:
batch, positions, the model's inputs and outputs.

Units are found by walking the graph once and uniting the indices that an operator ties
(``rules.py`` says what each ties). The idea is the dependency graph of Fang et al., "DepGraph:
Towards Any Structural Pruning", CVPR 2023; here it is taken from the exported operators, so that
views, splits and heads, which are numbers in a graph, are known exactly and can be written anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.program import Program

Index = npt.NDArray[np.int64]
Axes = tuple[Index, ...]
"""For each axis of a value, the unit of each index."""


@dataclass(frozen=True)
class Group:
    """Units that stand in the same axes: one width of the model."""

    name: str
    """The module of the first operator that has weights of it."""
    modules: frozenset[str]
    """Those of all such operators."""
    units: Index


@dataclass(frozen=True)
class Units:
    """The units of a program's graph."""

    count: int
    """Units are 1 to ``count``; 0 is what stays."""
    axes: Mapping[str, Axes]
    """Of every value, by its node's name."""
    constants: Mapping[str, Axes]
    """Of every weight, by the attribute that holds it."""
    readers: Mapping[str, g.Where]
    """Of every weight, the first operator that takes it, in the graph's order."""
    halted: tuple[g.Where, ...]
    """Operators that pruning does not see through: what they read keeps its channels."""

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """Units by width, in the order of the weights."""
        modules: dict[int, dict[str, None]] = {}
        places: dict[int, set[int]] = {}
        known: dict[bytes, int] = {}
        weights = [
            (where.module or where.node, self.constants[n]) for n, where in self.readers.items()
        ]
        for name, axes in (*weights, *(("", axes) for axes in self.axes.values())):
            for axis in axes:
                number = known.setdefault(axis.tobytes(), len(known))
                for unit in np.unique(axis[axis > 0]).tolist():
                    places.setdefault(unit, set()).add(number)
                    modules.setdefault(unit, {}).setdefault(name)
        widths: dict[frozenset[int], list[int]] = {}
        for unit in sorted(places):
            widths.setdefault(frozenset(places[unit]), []).append(unit)
        found = [(list(modules[units[0]]), np.array(units)) for units in widths.values()]
        return tuple(Group(names[0], frozenset(names) - {""}, units) for names, units in found)

    def everything(self) -> npt.NDArray[np.bool_]:
        """That all units are kept: [count + 1]."""
        return np.ones(self.count + 1, dtype=bool)


def units_of(program: Program, *, heads: bool = False) -> Units:
    """The units of a program.

    Args:
        program: float, after the standard rewrites.
        heads: let attention lose whole heads; else every head loses channels.
    """
    from edgemix.quantize.prune.rules import walk

    module = program.shared
    first = Tracer(module)
    walk(first, len(program.states))
    tracer = Tracer(module, first.batched, heads=heads)
    walk(tracer, len(program.states))
    return tracer.result()


@dataclass(frozen=True)
class Axis:
    """Units of one axis while they are being found, and the view that made it an axis."""

    ids: Index
    split: tuple[str, int] | None = None


class Tracer:
    """Unites indices, and keeps the axes of every value."""

    def __init__(
        self,
        module: GraphModule,
        batched: frozenset[tuple[str, int]] | set[tuple[str, int]] = frozenset(),
        *,
        heads: bool = False,
    ) -> None:
        self.module = module
        self.heads = heads
        self.head_axes = frozenset(batched)
        """Axes of views over which products of two values go head by head."""
        self.batched: set[tuple[str, int]] = set()
        """The same, as they are found in this walk."""
        self.halted: list[Node] = []
        self._of: dict[Node, tuple[Axis, ...]] = {}
        self._constants: dict[str, tuple[Axis, ...]] = {}
        self._parent = np.zeros(1, dtype=np.int64)

    def axes(self, node: Any) -> tuple[Axis, ...]:
        """The axes of a value that was reached before."""
        return self._of[node]

    def keep(self, node: Node, axes: Sequence[Axis]) -> None:
        """Say what a node's axes are."""
        self._of[node] = tuple(axes)

    def fresh(self, size: int) -> Axis:
        """New units for an axis; one index alone always stays."""
        if size < 2:
            return fixed(size)
        start = len(self._parent)
        self._parent = np.concatenate([self._parent, np.arange(start, start + size)])
        return Axis(np.arange(start, start + size))

    def constant(self, node: Node) -> tuple[Axis, ...]:
        """Axes of a weight: the same for all nodes that name it."""
        name = str(node.target)
        if name not in self._constants:
            value = g.constant(self.module, node)
            made = self.fresh if value.is_floating_point() else fixed
            self._constants[name] = tuple(made(size) for size in value.shape)
        return self._constants[name]

    def root(self, ids: Index) -> Index:
        """The name of each index's unit so far."""
        found = self._parent[ids]
        while True:
            above = self._parent[found]
            if (above == found).all():
                return found
            self._parent[ids] = above
            found = above

    def unite(self, a: Index, b: Index) -> None:
        """Say that indices go together, one by one; the lower name is the unit's, so 0 stays."""
        while True:
            low, high = self.root(a), self.root(b)
            low, high = np.minimum(low, high), np.maximum(low, high)
            apart = low != high
            if not apart.any():
                return
            np.minimum.at(self._parent, high[apart], low[apart])

    def freeze(self, axis: Axis) -> Axis:
        """Say that an axis keeps all of its indices."""
        self.unite(axis.ids, np.zeros_like(axis.ids))
        return fixed(len(axis.ids))

    def result(self) -> Units:
        """What was found, units numbered from 1 in the order of the weights."""
        everything = self.root(np.arange(len(self._parent)))
        cut = np.zeros(len(everything), dtype=bool)
        for axes in self._constants.values():
            for axis in axes:
                cut[everything[axis.ids]] = True
        cut[0] = False
        number = np.zeros(len(everything), dtype=np.int64)
        number[cut] = np.arange(1, int(cut.sum()) + 1)
        ids = number[everything]

        def told(axes: tuple[Axis, ...]) -> Axes:
            return tuple(ids[axis.ids] for axis in axes)

        readers: dict[str, g.Where] = {}
        for node in self.module.graph.nodes:
            for source in node.all_input_nodes:
                if source.op == "get_attr" and str(source.target) in self._constants:
                    readers.setdefault(str(source.target), g.where(node))
        return Units(
            int(cut.sum()),
            {node.name: told(axes) for node, axes in self._of.items()},
            {name: told(axes) for name, axes in self._constants.items()},
            readers,
            tuple(g.where(node) for node in self.halted),
        )


def fixed(size: int) -> Axis:
    """An axis that keeps all of its indices."""
    return Axis(np.zeros(size, dtype=np.int64))


def shape(node: Node) -> tuple[int, ...]:
    """The shape of a node's value; of several, of none."""
    value = node.meta.get("val")
    return tuple(int(n) for n in value.shape) if isinstance(value, Tensor) else ()
