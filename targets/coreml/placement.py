"""Which of a package's operations the CPU, the GPU and the Neural Engine can be expected to take.

An expectation, from documented constraints (:mod:`edgemix.targets.coreml.constraints`), never a
measurement. On a Mac, :mod:`edgemix.targets.coreml.plan` asks Core ML itself.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgemix.targets.coreml.constraints import CONSTRAINTS, REMARKS, UNITS, Unit
from edgemix.targets.coreml.nodes import Node, nodes
from edgemix.targets.coreml.package import Package

NO_CONSTRAINT = "no documented constraint"


@dataclass(frozen=True)
class Placement:
    """Where one operation can run."""

    op: str
    name: str
    """Of its first result."""
    units: tuple[Unit, ...]
    """That take it."""
    why: str
    """Why the others do not."""
    source: str
    preferred: Unit | None = None
    """The one that Core ML prefers; None in an expectation."""
    cost: float | None = None
    """Its share of the model's work, 0 to 1, as Core ML estimates it; None in an expectation."""

    @property
    def likely(self) -> Unit | None:
        """The preferred unit, or the first of :data:`UNITS` that takes it."""
        return self.preferred or next((u for u in UNITS if u in self.units), None)


@dataclass(frozen=True)
class Obstacle:
    """Why operations of one type are kept off the Neural Engine."""

    op: str
    why: str
    source: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Remark:
    """What holds of some operations, and is no obstacle."""

    why: str
    source: str
    operations: int


@dataclass(frozen=True)
class Summary:
    """A model's placements, counted."""

    operations: int
    takes: Mapping[Unit, float]
    """The share of operations that each unit takes."""
    likely: Mapping[Unit, float]
    """The share of operations whose likely unit it is."""
    cost: Mapping[Unit, float] | None
    """The share of the estimated work; None in an expectation."""
    switches: int
    """How often the likely unit changes, in the program's order."""
    obstacles: tuple[Obstacle, ...]
    """Most frequent first."""


def placements(package: Package, function: str = "main") -> tuple[Placement, ...]:
    """Where each operation is expected to run: an expectation, never a measurement.

    Constants, and operations that only expand them, are left out.

    Raises:
        InputError: the package lacks the function, or is damaged.
    """
    return tuple(_placed(node) for node in nodes(package, function))


def remarks(package: Package, function: str = "main") -> tuple[Remark, ...]:
    """What holds of some of its operations, and is no obstacle."""
    found = list(nodes(package, function))
    counted = ((row, sum(row.applies(n) for n in found)) for row in REMARKS)
    return tuple(Remark(row.why, str(row.source), n) for row, n in counted if n)


def summarize(found: Sequence[Placement]) -> Summary:
    """Shares, switches between units, and what keeps the model off the Neural Engine."""
    count = len(found)
    homes = [p.likely for p in found]
    kept: dict[tuple[str, str, str], list[str]] = {}
    for p in found:
        if "Neural Engine" not in p.units:
            kept.setdefault((p.op, p.why, p.source), []).append(p.name)
    obstacles = [Obstacle(*key, tuple(names)) for key, names in kept.items()]
    work = math.fsum(p.cost or 0.0 for p in found)
    costs = {u: math.fsum(p.cost or 0.0 for p in found if p.likely == u) for u in UNITS}
    return Summary(
        operations=count,
        takes={u: sum(u in p.units for p in found) / max(count, 1) for u in UNITS},
        likely={u: homes.count(u) / max(count, 1) for u in UNITS},
        cost={u: c / work for u, c in costs.items()} if work else None,
        switches=sum(a != b for a, b in itertools.pairwise(homes)),
        obstacles=tuple(sorted(obstacles, key=lambda o: -len(o.names))),
    )


def _placed(node: Node) -> Placement:
    rows = [row for row in CONSTRAINTS if row.applies(node)]
    refused = {unit for row in rows for unit in row.refuses}
    return Placement(
        op=node.op,
        name=node.name,
        units=tuple(u for u in UNITS if u not in refused),
        why="; ".join(row.why for row in rows) or NO_CONSTRAINT,
        source="; ".join(dict.fromkeys(str(row.source) for row in rows)),
    )
