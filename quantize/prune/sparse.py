"""Sparse weights after training: which of them go, and what the others make of it.

Frantar & Alistarh, "SparseGPT: Massive Language Models Can be Accurately Pruned in One-Shot", ICML
2023. Each row loses its weights column after column, where the error w² / [H⁻¹]jj is least, and the
columns left make up for it. Then those that stay are fitted once more, all together.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.ends import ends
from edgemix.quantize.prune.axes import units_of
from edgemix.quantize.prune.lockstep import Lockstep, owns_weights
from edgemix.quantize.prune.moments import Fit
from edgemix.quantize.prune.observe import Reader, observe

_DAMPING = 0.01
"""Of the mean second moment, added to each: as in the paper's code."""
_CHEAP = 1e-30
"""A price that no weight but a useless one costs less than."""
_HALVINGS = 24
"""Of the range of prices, in which one is looked for that a number of weights is worth."""


@dataclass(frozen=True)
class Pattern:
    """Which share of weights is zero, and whether in every run of so many."""

    zeros: float
    run: int | None = None
    """Input channels side by side that lose alike; None: zeros stand anywhere."""

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """``2:4``: of each four weights of input channels two stay; or ``70%``: so many are zero.

        Raises:
            InputError: it is neither.
        """
        stay, colon, run = text.partition(":")
        share = text.removesuffix("%")
        if colon and stay.isdecimal() and run.isdecimal() and 0 < int(stay) < int(run):
            return cls(1 - int(stay) / int(run), int(run))
        try:
            percent = float(share) if share != text else math.nan
        except ValueError:
            percent = math.nan
        if not 0 < percent < 100:
            raise InputError(
                f"{text!r} is no pattern of sparse weights",
                do="write 2:4 (two of each four weights stay), or 70% (so many are zero)",
            )
        return cls(percent / 100)

    @property
    def stay(self) -> int:
        """How many weights of a run stay."""
        assert self.run is not None
        return round(self.run * (1 - self.zeros))

    def __str__(self) -> str:
        return f"{100 * self.zeros:g}%" if self.run is None else f"{self.stay}:{self.run}"


@dataclass(frozen=True)
class Sparsity:
    """The zeros of one layer's weights."""

    where: g.Where
    weights: int
    zeros: int
    whole: str = ""
    """Why the pattern leaves the layer whole; empty where it does not."""


def sparsities(program: Program, pattern: Pattern) -> tuple[Sparsity, ...]:
    """Of every layer with weights, in the graph's order: its zeros, and whether it should have any.

    Args:
        program: float, before or after :func:`sparsify`.
        pattern: the pattern that it is, or was, asked for.
    """
    module = program.module()
    whole = _whole(module, pattern)
    found = []
    for node in _layers(module):
        weight = g.constant(module, _weight(node))
        found.append(
            Sparsity(
                g.where(node), weight.numel(), int((weight == 0).sum()), whole.get(node.name, "")
            )
        )
    return tuple(found)


def sparsify(
    program: Program,
    samples: Tensor,
    pattern: Pattern,
    on_step: Callable[[float], None] = lambda _: None,
) -> Program:
    """The program with weights that are exactly zero, and the others fitted to make up for them.

    The layers of the whole and of the sparse program run side by side: each is given its zeros for
    what the sparse ones in front of it give, and fitted to what the whole program has there.
    Depthwise convolutions, the first and the last layers and weights with several readers stay
    whole, see :func:`sparsities`. Weights that are zero stay so.

    Without a run, a layer loses as many weights as are worth the same price in all layers: their
    error, weighed by the outputs' squared slope to each row (``observe.py``).

    Args:
        program: float, with the standard rewrites.
        samples: inputs [n, ...]; a few hundred. Of a program with states [n, steps, ...].
        pattern: what becomes zero.
        on_step: called with the share that is done.

    Raises:
        InputError: the program has several inputs, there are no samples, or the pattern fits no
            layer.
    """
    if len(program.inputs) != 1:
        raise InputError(
            "sparse weights are chosen for programs with one input", do="prune widths instead"
        )
    if not len(samples):
        raise InputError("there are no samples to choose sparse weights by", do="give some")
    module = program.module()
    whole = _whole(module, pattern)
    names = [node.name for node in _layers(module) if node.name not in whole]
    if not names:
        reasons = ", ".join(f"{count} {why}" for why, count in Counter(whole.values()).items())
        raise InputError(
            f"{pattern} leaves every layer whole: {reasons or 'there are no linear operators'}",
            do="ask for another pattern, or for a share such as 50%",
        )
    counts = _counts(program, samples, pattern, names) if pattern.run is None else {}
    pair = Lockstep(program, program, samples, lambda _, value: value)

    def sparse(node: Node, fit: Fit) -> Fit:
        if node.name not in names:
            return fit
        now = g.constant(pair.small, _weight(node)).reshape(fit.weight.shape)
        layer = _Layer(fit.weight, fit.square, now != 0)
        if pattern.run is None:
            rows, count = counts[node.name]
            made = layer.without(rows, _price([(layer, rows)], count))
        else:
            made = layer.in_runs(pattern, math.prod(g.shape_of(_weight(node))[2:]))
        return fit.without(made != 0)

    pair.run(on_step, sparse)
    return pair.result(Step("sparsify", {"pattern": str(pattern), "samples": len(samples)}))


class _Layer:
    """Weights that lose some of theirs, column after column."""

    def __init__(self, weight: Tensor, moment: Tensor, there: Tensor) -> None:
        """Take weights, moments [groups, columns, columns] of columns, and which are not zero."""
        self._weight, self._there = weight.double(), there
        self._moment = moment

    def in_runs(self, pattern: Pattern, places: int) -> Tensor:
        """Weights with the zeros of a pattern in each run of input channels.

        Args:
            pattern: with runs.
            places: of a kernel; its channels are the slower axis of the columns.
        """
        assert pattern.run is not None
        runs = torch.arange(self._weight.shape[2]).reshape(-1, places).T.reshape(-1, pattern.run)
        # The largest first, while many columns are left to make up for them.
        order = runs[torch.argsort(self._sizes()[runs].sum(1), descending=True)].reshape(-1)

        def choose(cost: Tensor) -> Tensor:
            best = cost.topk(pattern.stay, dim=2).indices
            return torch.zeros_like(cost, dtype=torch.bool).scatter(2, best, value=True)

        return self._swept(order, self._factor(order), pattern.run, choose)

    def without(self, rows: Tensor, price: float) -> Tensor:
        """Weights without those whose loss costs less than a price.

        Args:
            rows: what the squared error of each row counts: [groups, rows].
            price: of a weight.
        """
        order, factor = self._smallest_first
        return self._swept(order, factor, 1, lambda cost: cost * rows[:, :, None] >= price)

    @cached_property
    def _smallest_first(self) -> tuple[Tensor, Tensor]:
        """The columns, and their factor: the same for all prices."""
        order = torch.argsort(self._sizes())
        return order, self._factor(order)

    def _factor(self, order: Tensor) -> Tensor:
        """Of the inverse moments of columns in this order: how later ones make up for each."""
        moment = self._moment[:, order][:, :, order]
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(moment))
        factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
        return factor

    def _sizes(self) -> Tensor:
        """Of what each column adds to the results: [columns]."""
        size = self._moment.diagonal(dim1=1, dim2=2) * self._weight.square().mean(1)
        return size.mean(0)

    def _swept(
        self, order: Tensor, factor: Tensor, run: int, choose: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Weights whose columns, in this order and so many at once, lose what is not chosen."""
        work, there = self._weight[:, :, order].clone(), self._there[:, :, order]
        each = factor.diagonal(dim1=1, dim2=2)
        for start in range(0, work.shape[2], run):
            now = slice(start, start + run)
            cost = (work[:, :, now] / each[:, None, now]).square()
            # What is zero already goes before all others.
            stay = choose(torch.where(there[:, :, now], cost, -1.0)) & there[:, :, now]
            for j in range(start, start + run):
                gone = torch.where(stay[:, :, j - start], 0.0, work[:, :, j]) / each[:, j, None]
                work[:, :, j:] -= gone[:, :, None] * factor[:, j, None, j:]
            work[:, :, now] = torch.where(stay, work[:, :, now], 0.0)
        return work[:, :, torch.argsort(order)]


def _price(layers: Sequence[tuple[_Layer, Tensor]], count: int) -> float:
    """The lowest price at which layers lose at least so many weights together."""

    def lost(price: float) -> int:
        return sum(int((layer.without(rows, price) == 0).sum()) for layer, rows in layers)

    low, high = _CHEAP, _CHEAP
    while lost(high) < count:
        low, high = high, high * 1e6
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if lost(middle) < count else (low, middle)
    return high


def _counts(
    program: Program, samples: Tensor, pattern: Pattern, names: Collection[str]
) -> dict[str, tuple[Tensor, int]]:
    """For each layer what an error of each row counts, and how many weights go."""
    layers: dict[str, _Layer] = {}
    weights: dict[str, Tensor] = {}
    rows: dict[str, Tensor] = {}
    readers: dict[str, list[Reader]] = {}
    for reader in observe(program, units_of(program), samples).readers:
        readers.setdefault(reader.node, []).append(reader)
    for name in names:
        parts = readers[name]
        weights[name] = weight = torch.stack([part.weight for part in parts])
        moment = torch.stack([part.covariance for part in parts]).double()
        size = moment.diagonal(dim1=1, dim2=2)
        size.add_(_DAMPING * size.mean(1, keepdim=True).clamp(min=1e-12))
        layers[name] = _Layer(weight, moment, weight != 0)
        rows[name] = torch.stack([part.sensitivity for part in parts]).double()
    count = math.ceil(pattern.zeros * sum(w.numel() for w in weights.values()))
    price = _price([(layers[name], rows[name]) for name in names], count)
    return {
        name: (rows[name], int((layers[name].without(rows[name], price) == 0).sum()))
        for name in names
    }


def _whole(module: GraphModule, pattern: Pattern) -> dict[str, str]:
    """Why layers stay whole, by the names of those that do."""
    edges = set(ends(module))
    found = {}
    for node in _layers(module):
        shape = g.shape_of(_weight(node))
        if not owns_weights(node):
            found[node.name] = "weights with several readers"
        elif node in edges:
            found[node.name] = "first or last"
        elif node.target in g.CONVOLUTION and shape[1] == 1:
            found[node.name] = "depthwise"
        elif pattern.run is not None and shape[1] % pattern.run:
            found[node.name] = f"its {shape[1]} input channels are no runs of {pattern.run}"
    return found


def _layers(module: GraphModule) -> Iterator[Node]:
    """Linear operators with constant weights."""
    for node in module.graph.nodes:
        if node.target in g.LINEAR and _weight(node).op == "get_attr":
            yield node


def _weight(node: Node) -> Node:
    weight: Any = node.args[1]
    assert isinstance(weight, Node)
    return weight
