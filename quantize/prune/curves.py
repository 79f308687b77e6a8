"""In which order a width loses its units, and what each loss costs the outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix import graph as g
from edgemix.program import Program
from edgemix.quantize.prune.axes import Group, Index, Units
from edgemix.quantize.prune.choices import Importance
from edgemix.quantize.prune.observe import Observation, Reader

_DAMPING = 0.01
_FEW = 64
"""Widths up to this lose one unit at a time, wider ones as many of their parts."""


@dataclass(frozen=True)
class Curve:
    """A group's units from the first to go to the last, and the cost of losing them so far."""

    group: Group
    order: Index
    cost: npt.NDArray[np.float64]
    """[units + 1]: of losing none, one, two …"""


def curves(
    program: Program, units: Units, importance: Importance, found: Observation | None
) -> tuple[Curve, ...]:
    """The curve of every group.

    Args:
        program: whose units they are.
        units: the groups.
        importance: what a unit is worth.
        found: what data says of them; None only for those that need no data.
    """
    if importance == "order":
        return tuple(_by_place(group) for group in units.groups)
    if importance == "refit":
        assert found is not None
        places = tuple(_places(units, program, found))
        sizes = _magnitude(program, units)
        return tuple(_by_refit(group, found, places, sizes) for group in units.groups)
    scores = _scores(program, units, importance, found)
    return tuple(_by_score(group, scores) for group in units.groups)


def _by_score(group: Group, scores: npt.NDArray[np.float64]) -> Curve:
    own = scores[group.units]
    order = np.argsort(own, kind="stable")
    return Curve(group, group.units[order], np.concatenate([[0.0], np.cumsum(own[order])]))


def _by_place(group: Group) -> Curve:
    """The last goes first; all widths shrink alike."""
    count = len(group.units)
    return Curve(group, group.units[::-1], np.linspace(0.0, 1.0, count + 1) ** 2 * count)


def _scores(
    program: Program, units: Units, importance: Importance, found: Observation | None
) -> npt.NDArray[np.float64]:
    if importance == "magnitude":
        return _magnitude(program, units)
    assert found is not None
    if importance == "hessian":
        return found.slopes.double().square().mean(0).numpy()  # type: ignore[no-any-return]
    if importance == "taylor":
        return found.slopes.double().mean(0).abs().numpy()  # type: ignore[no-any-return]
    scores = np.zeros(units.count + 1)
    for reader, ids in _places(units, program, found):
        size = reader.weight.square().sum(0) * reader.covariance.diagonal()
        # Layers count alike: the share of what each reads.
        np.add.at(scores, ids, (size / size.sum().clamp(min=1e-12)).double().numpy())
    unread = scores == 0
    scores[unread] = _magnitude(program, units)[unread]
    return scores


def _magnitude(program: Program, units: Units) -> npt.NDArray[np.float64]:
    """Mean over weights of a unit's share of each weight's squared size."""
    module = program.shared
    scores, counts = np.zeros(units.count + 1), np.zeros(units.count + 1)
    for node in module.graph.find_nodes(op="get_attr"):
        axes = units.constants.get(str(node.target), ())
        if sum(bool(a.any()) for a in axes) == 0 or len(axes) < 2:
            continue
        value = g.constant(module, node).double()
        for dim, axis in enumerate(axes):
            if axis.any():
                size = value.square().sum([d for d in range(value.ndim) if d != dim])
                np.add.at(scores, axis, (size / size.mean().clamp(min=1e-12)).numpy())
                np.add.at(counts, axis, 1)
    return scores / np.maximum(counts, 1)


def _places(units: Units, program: Program, found: Observation) -> Iterator[tuple[Reader, Index]]:
    """Every reader with the unit of each of its columns."""
    nodes = {n.name: n for n in program.shared.graph.nodes}
    for reader in found.readers:
        node = nodes[reader.node]
        ids = units.constants[str(node.args[1].target)][1]  # type: ignore[union-attr]
        yield reader, np.repeat(ids, reader.weight.shape[1] // len(ids))


def _by_refit(
    group: Group,
    found: Observation,
    places: tuple[tuple[Reader, Index], ...],
    sizes: npt.NDArray[np.float64],
) -> Curve:
    """Units go where the outputs lose least after the weights that stay are fitted again.

    The optimal brain surgeon over whole columns (Hassibi & Stork, NIPS 1992; Kurtic et al.,
    "ZipLM", NeurIPS 2023), each row of a layer weighed by the outputs' squared slope to it.
    """
    layers = [_Layer(reader, columns) for reader, ids in places
              if (columns := _columns(ids, group)) is not None]  # fmt: skip
    if not layers and found.slopes[:, group.units].any():
        return _by_slopes(group, found)
    if not layers:
        return _by_score(group, sizes)
    left = np.arange(len(group.units))
    at_once = max(1, len(left) // _FEW)
    order: list[int] = []
    cost = [0.0]
    while len(left):
        each = sum(layer.costs(left) for layer in layers)
        assert isinstance(each, Tensor)
        gone = np.argsort(each.numpy(), kind="stable")[:at_once]
        order += left[gone].tolist()
        cost += (cost[-1] + np.cumsum(each.numpy()[gone])).tolist()
        for layer in layers:
            layer.remove(left[gone])
        left = np.delete(left, gone)
    return Curve(group, group.units[order], np.array(cost))


def _columns(ids: Index, group: Group) -> Index | None:
    """For each unit of a group, its columns: [units, columns each]; None if there are none."""
    places = [np.flatnonzero(ids == unit) for unit in group.units]
    return np.stack(places) if len(places[0]) else None


class _Layer:
    """One layer that loses columns while its others make up for them."""

    def __init__(self, reader: Reader, columns: Index) -> None:
        moment = reader.covariance.double()
        moment = moment + _DAMPING * moment.diagonal().mean().clamp(min=1e-12) * torch.eye(
            len(moment), dtype=torch.float64
        )
        self._inverse = torch.linalg.inv(moment)
        self._weight = reader.weight.double() * reader.sensitivity.double().sqrt()[:, None]
        self._columns = torch.from_numpy(columns)

    def costs(self, left: Index) -> Tensor:
        """Of each unit alone: [units left]."""
        places = self._columns[left]  # [units, columns each]
        own = self._inverse[places[:, :, None], places[:, None, :]]
        weights = self._weight[:, places].permute(1, 2, 0)  # [units, columns each, rows]
        solved = torch.linalg.solve(own, weights)
        costs: Tensor = (weights * solved).sum((1, 2))
        return costs

    def remove(self, gone: Index) -> None:
        """Drop units, and let the columns left make up for them."""
        places = self._columns[gone].reshape(-1)
        own = self._inverse[places[:, None], places[None, :]]
        ahead = torch.linalg.solve(own, self._inverse[places])  # [gone, columns]
        self._weight = self._weight - self._weight[:, places] @ ahead
        self._inverse = self._inverse - self._inverse[:, places] @ ahead
        # What is gone must not come back by rounding: it has no weight, and no neighbours.
        self._weight[:, places] = 0.0
        self._inverse[places], self._inverse[:, places] = 0.0, 0.0
        self._inverse[places, places] = 1.0


def _by_slopes(group: Group, found: Observation) -> Curve:
    """Units that no layer reads (queries and keys): their slopes added up, as they go."""
    slopes = found.slopes[:, group.units].double()
    left = np.arange(len(group.units))
    gone = torch.zeros(len(slopes), dtype=torch.float64)
    order: list[int] = []
    cost = [0.0]
    while len(left):
        after = (gone[:, None] + slopes[:, left]).square().mean(0)
        best = int(after.argmin())
        order.append(int(left[best]))
        gone = gone + slopes[:, left[best]]
        cost.append(max(cost[-1], float(after[best])))
        left = np.delete(left, best)
    return Curve(group, group.units[order], np.array(cost))
