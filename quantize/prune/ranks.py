"""Which layers are factored, and to how many inner channels, for a budget."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx import Node

from edgemix import graph as g
from edgemix.diagnosis import macs
from edgemix.errors import InputError
from edgemix.quantize.prune.dense_sparse import dense_sparse
from edgemix.quantize.prune.factors import by_channel, low_rank, weights_of
from edgemix.quantize.prune.observe import Reader
from edgemix.quantize.prune.size import Counted

Kind = Literal["low-rank", "dense-sparse"]
Form = Literal["kernel first", "channels first", "sparse first", "sparse second"]
"""Which factor of a convolution has the kernel: the other's is 1×1. Of a dense and a sparse factor
it is the first."""

_DAMPING = 0.01
"""Of the mean variance, added to each: calibration data is not all there is."""
_INNER, _EACH = (0.125, 0.25, 0.4, 0.6), (2, 3, 4, 6, 8)
"""Dense and sparse factors that are tried: shares of a layer's rank, and nonzeros."""
_BITS = 8
"""Of a stored weight, in which a nonzero's place is counted: what quantizing leaves."""


@dataclass(frozen=True)
class Point:
    """A layer as two factors, or whole."""

    cost: int
    """Multiply-accumulates or weights."""
    error: float = 0.0
    """Of the outputs, predicted."""
    first: Tensor | None = None
    """[inner, columns] or [inner, channels]; None for a whole layer."""
    form: Form = "kernel first"
    second: Tensor | None = None
    """[rows, inner]; None: the one of least error."""


def covariance_of(reader: Reader) -> Tensor:
    """Of what a layer reads, with no direction that is never seen."""
    found = reader.covariance.double()
    size = found.diagonal().mean().clamp(min=1e-12)
    return found + _DAMPING * size * torch.eye(len(found), dtype=found.dtype)


def path_of(
    node: Node, reader: Reader, counted: Counted, kinds: tuple[Kind, ...] = ("low-rank",)
) -> tuple[Point, ...]:
    """A layer from whole to one inner channel, every step dearer in error by what it saves.

    Args:
        node: a linear operator of one group.
        reader: what data says of it.
        counted: what is to be saved.
        kinds: of factors; dense and sparse ones only where weights are counted.
    """
    whole = reader.weight.numel() if counted == "parameters" else macs(node)
    points: list[Point] = []
    if "low-rank" in kinds:
        points += _low_rank(node, reader, counted)
    if "dense-sparse" in kinds:
        points += _dense_sparse(node, reader)
    hull = [Point(whole)]
    for point in sorted(points, key=lambda p: (-p.cost, p.error)):
        if point.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _price(hull[-2], hull[-1]) >= _price(hull[-1], point):
            hull.pop()
        hull.append(point)
    return tuple(hull)


def _low_rank(node: Node, reader: Reader, counted: Counted) -> Iterator[Point]:
    rows, columns = reader.weight.shape
    source: Any = node.args[0]
    read = g.shape_of(source)
    channels = read[1] if node.target in g.CONVOLUTION else columns
    covariance = covariance_of(reader)
    places = macs(node) // reader.weight.numel()
    each = rows + columns if counted == "parameters" else places * (rows + columns)
    more = _more(node, rows) if counted == "parameters" else 0
    basis = low_rank(reader.weight, covariance, reader.sensitivity)
    for rank in range(1, len(basis.rows) + 1):
        yield Point(each * rank + more, float(basis.error[rank]), basis.rows[:rank])
    if channels == columns:
        return
    kernel = rows * columns // channels
    each = channels + kernel if counted == "parameters" else math.prod(read) + places * kernel
    basis = by_channel(reader.weight, covariance, reader.sensitivity, channels)
    for rank in range(1, len(basis.rows) + 1):
        yield Point(
            each * rank + more, float(basis.error[rank]), basis.rows[:rank], "channels first"
        )


def _dense_sparse(node: Node, reader: Reader) -> Iterator[Point]:
    rows, columns = reader.weight.shape
    few, many = sorted((rows, columns))
    form: Form = "sparse first" if rows <= columns else "sparse second"
    covariance, weights = covariance_of(reader), weights_of(reader.sensitivity)
    for inner in sorted({max(round(share * few), 2) for share in _INNER}):
        place = math.ceil(math.log2(inner)) / _BITS
        for each in _EACH:
            cost = math.ceil(inner * few + each * many * (1 + place)) + _more(node, rows)
            if each >= inner or inner > few or cost >= rows * columns:
                continue
            first, second = dense_sparse(reader.weight, covariance, reader.sensitivity, inner, each)
            missed = weights[:, None] * (reader.weight.double() - second @ first)
            error = float(((missed @ covariance) * missed).sum())
            yield Point(cost, error, first, form, second)


def _more(node: Node, rows: int) -> int:
    """Weights of a bias where there was none: what factors miss has a mean."""
    return 0 if len(node.args) > 2 and node.args[2] is not None else rows


def _price(before: Point, after: Point) -> float:
    """Error by what is saved."""
    return (after.error - before.error) / (before.cost - after.cost)


def choose(paths: Mapping[str, Sequence[Point]], total: int, budget: float) -> dict[str, Point]:
    """The layers that are factored, and how: always the step next that buys most.

    Args:
        paths: of every layer that may be factored.
        total: what everything costs.
        budget: what it may cost.

    Raises:
        InputError: all steps do not suffice, or there are none.
    """
    steps = [(_price(*pair), name, pair) for name, path in paths.items() for pair in pairwise(path)]
    if not steps:
        raise InputError("no layer is cheaper as two", do="prune widths or weights instead")
    floor = total - sum(path[0].cost - path[-1].cost for path in paths.values())
    if floor > budget:
        raise InputError(
            f"the budget cannot be met: {floor / total:.1%} is the least that factors leave",
            do="ask for less, or prune widths first",
        )
    chosen = {}
    for _, name, (before, after) in sorted(steps, key=lambda step: step[0]):
        if total <= budget:
            break
        total -= before.cost - after.cost
        chosen[name] = after
    return chosen
