"""A NIR graph as a module of one step: nodes in an order, what runs in circles a step later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.nir.dialect import Dialect
from edgemix.nir.layers import Delay, module_of
from edgemix.nir.neurons import Neuron
from edgemix.streaming.protocol import State, Stepwise, held, part

Edge = tuple[str, str]


class Network(Stepwise):
    """All nodes of a graph; several edges into one node are summed, as NIR has it.

    An edge that closes a circle carries what its source gave in the step before.

    Shape: [batch, time, *input] → [batch, time, *output].
    """

    def __init__(self, graph: Any, dialect: Dialect) -> None:
        super().__init__()
        self.graph, self.dialect = graph, dialect
        nodes, edges = flattened(graph)
        self.entry, self.exit = _ends(nodes, edges)
        self.late = frozenset(_late(edges, self.entry, nodes))
        self.order = _ordered([e for e in edges if e not in self.late], list(nodes))
        self.sources = {n: [a for a, b in edges if b == n] for n in nodes}
        self.names = {n: f"node_{i}" for i, n in enumerate(nodes)}
        self.parts = nn.ModuleDict()
        for name, node in nodes.items():
            try:
                self.parts[self.names[name]] = module_of(node, dialect)
            except InputError as error:
                raise InputError(error.what, at=f"node {name}", do=error.do) from error
        self.shape = _input_shape(nodes[self.entry])
        self._fit_shapes()
        self.eval()

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        found: dict[str, Any] = {}
        for name in self.order:
            state = self._part(name).initial_state(batch)
            if state:
                found[self.names[name]] = state
        for name in sorted({a for a, _ in self.late}):
            found[f"{self.names[name]}_late"] = torch.zeros(batch, *self.shapes[name])
        return found

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        values: dict[str, Tensor] = {}
        after: dict[str, Any] = {}
        for name in self.order:
            given = x if name == self.entry else self._summed(name, values, state)
            key = self.names[name]
            values[name], new = self._part(name).step(
                given, part(state, key) if key in state else {}
            )
            if new:
                after[key] = new
        for name in sorted({a for a, _ in self.late}):
            after[f"{self.names[name]}_late"] = values[name]
        return values[self.exit], after

    def _part(self, name: str) -> Stepwise:
        found = self.parts[self.names[name]]
        assert isinstance(found, Stepwise)
        return found

    def _summed(self, name: str, values: dict[str, Tensor], state: State) -> Tensor:
        given = [
            held(state, f"{self.names[a]}_late") if (a, name) in self.late else values[a]
            for a in self.sources[name]
        ]
        total = given[0]
        for value in given[1:]:
            total = total + value
        return total

    def _fit_shapes(self) -> None:
        """Give every neuron the shape of what reaches it, and check that all fits together."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        waiting = list(self.order)
        while waiting:
            # What only spikes of the step before reach waits for the neuron that sends them.
            name = next((n for n in waiting if self._reached(n) is not None), None)
            if name is None:
                raise InputError(f"nothing but itself reaches the NIR node {waiting[0]}")
            waiting.remove(name)
            shape = self._reached(name)
            assert shape is not None
            module = self._part(name)
            try:
                if isinstance(module, Neuron):
                    module.shape = tuple(np.broadcast_shapes(module.shape, shape))
                if isinstance(module, Delay) and module.shape != shape:
                    raise ValueError(f"it delays {module.shape}, {shape} reaches it")
                with torch.no_grad():
                    y, _ = module.step(torch.zeros(1, *shape), module.initial_state(1))
            except (RuntimeError, ValueError) as error:
                raise InputError(
                    f"what reaches a NIR node does not fit it: {str(error).splitlines()[0]}",
                    at=f"node {name}, which is given {shape}",
                ) from error
            self.shapes[name] = tuple(y.shape[1:])

    def _reached(self, name: str) -> tuple[int, ...] | None:
        """The shape that comes in, as far as it is known."""
        if name == self.entry:
            return self.shape
        return next((self.shapes[a] for a in self.sources[name] if a in self.shapes), None)


def flattened(graph: Any, prefix: str = "") -> tuple[dict[str, Any], list[Edge]]:
    """The nodes of a graph with those of the graphs inside it, and the edges between them.

    Raises:
        InputError: an edge leads to or from a node that is not there.
    """
    nodes: dict[str, Any] = {}
    edges: list[Edge] = []
    inner: dict[str, tuple[str, str]] = {}
    for name, node in graph.nodes.items():
        path = f"{prefix}{name}"
        if type(node).__name__ == "NIRGraph":
            more, between = flattened(node, f"{path}.")
            nodes |= more
            edges += between
            inner[name] = _ends(more, between)
        else:
            nodes[path] = node
            inner[name] = (path, path)
    for a, b in dict.fromkeys(map(tuple, graph.edges)):
        lost = next((n for n in (a, b) if n not in inner), None)
        if lost is not None:
            raise InputError(f"the NIR edge {a} → {b} hangs loose: there is no node {lost}")
        edges.append((inner[a][1], inner[b][0]))
    return nodes, edges


def _ends(nodes: dict[str, Any], edges: list[Edge]) -> tuple[str, str]:
    entries = [n for n, node in nodes.items() if type(node).__name__ == "Input"]
    exits = [n for n, node in nodes.items() if type(node).__name__ == "Output"]
    # The graphs inside have ends of their own, which edges lead on from.
    first = [n for n in entries if all(b != n for _, b in edges)]
    last = [n for n in exits if all(a != n for a, _ in edges)]
    if len(first) != 1 or len(last) != 1:
        raise InputError(
            f"the NIR graph has {len(first)} inputs and {len(last)} outputs",
            do="give it one of each",
        )
    return first[0], last[0]


def _late(edges: list[Edge], entry: str, nodes: dict[str, Any]) -> Iterator[Edge]:
    """The edges that close circles, moved back to the neuron that feeds them."""
    following: dict[str, list[str]] = {n: [] for n in nodes}
    for a, b in edges:
        following[a].append(b)
    closing: list[Edge] = []
    done: set[str] = set()

    def visit(name: str, path: tuple[str, ...]) -> None:
        for after in following[name]:
            if after in path or after == name:
                closing.append((name, after))
            elif after not in done:
                visit(after, (*path, name))
        done.add(name)

    visit(entry, ())
    lost = next((n for n in nodes if n not in done), None)
    if lost is not None:
        raise InputError(f"the input does not reach the NIR node {lost}")
    for a, b in closing:
        # A spike of the step before is one bit; what weights make of it is many.
        while not is_neuron(nodes[a]) and len(before := _before(edges, a)) == 1:
            a, b = before[0], a
        yield a, b


def is_neuron(node: Any) -> bool:
    """Whether a node fires or integrates."""
    return type(node).__name__ in ("LIF", "LI", "CubaLIF", "CubaLI", "IF", "I")


def _before(edges: list[Edge], name: str) -> list[str]:
    return [a for a, b in edges if b == name]


def _ordered(edges: list[Edge], names: list[str]) -> list[str]:
    """Sources before what they feed."""
    waiting = {n: {a for a, b in edges if b == n} for n in names}
    order: list[str] = []
    while waiting:
        ready = [n for n, before in waiting.items() if not before]
        if not ready:
            raise InputError(f"NIR nodes feed each other within one step: {', '.join(waiting)}")
        for name in ready:
            order.append(name)
            del waiting[name]
            for before in waiting.values():
                before.discard(name)
    return order


def _input_shape(node: Any) -> tuple[int, ...]:
    kinds = node.input_type
    shape = next(iter(kinds.values()), None) if isinstance(kinds, dict) else kinds
    if shape is None:
        raise InputError("the NIR graph does not say the shape of its input")
    return tuple(int(n) for n in np.ravel(shape))
