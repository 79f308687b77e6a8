"""Cells as a matrix: a row a system, a column a target, a mark a kind of program."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from edgemix.systems.catalog import FPGAS, GROUPS, Group, Kind, Slot, System, slots
from edgemix.systems.cell import Cell

KEPT, STRAYS, MISSED, REFUSED, UNKNOWN = "✓", "~", "✗", "–", "?"

LEGEND = {
    KEPT: "keeps its contract in the target's own runtime",
    STRAYS: "misses it, as the program does by itself when roundings go the other way",
    MISSED: "misses it",
    REFUSED: "refused; `--why` says which node, and the reason",
    UNKNOWN: "not measured",
}
_TITLES = {
    "onnx": "ONNX", "tflite": "TFLite", "coreml": "Core ML", "hls4ml": "hls4ml", "rtl": "RTL",
}  # fmt: skip
_GROUPS: dict[Group, str] = {
    "tiny": "Tier 1, tiny variants",
    "tier2": "Tier 2, tiny models",
    "published": "Tier 1, published sizes",
    "timm": "timm's families",
}


@dataclass(frozen=True)
class Matrix:
    """One group of systems."""

    title: str
    targets: tuple[str, ...]
    heads: tuple[str, ...]
    """Of the columns, one a target."""
    rows: tuple[tuple[System, tuple[tuple[Slot, ...], ...]], ...]
    """A system, and its slots target by target."""
    cells: Mapping[Slot, Cell]

    def marks(self, places: Sequence[Slot]) -> str:
        """How a target takes a system, kind by kind."""
        return " ".join(mark(self.cells.get(slot)) for slot in places)

    def tally(self) -> Iterator[str]:
        """How many systems each target takes, kind by kind."""
        for target in self.targets:
            asked = [slot for _, row in self.rows for places in row for slot in places]
            of = [slot for slot in asked if slot.target == target]
            counts = []
            for kind in dict.fromkeys(slot.kind for slot in of):
                found = [mark(self.cells.get(slot)) for slot in of if slot.kind == kind]
                strays = found.count(STRAYS)
                more = f" (and {strays} {STRAYS})" if strays else ""
                counts.append(f"{named(kind, target)} {found.count(KEPT)} of {len(found)}{more}")
            yield f"{_TITLES[target]}: {', '.join(counts)}"


def matrices(chosen: Sequence[System], cells: Iterable[Cell]) -> Iterator[Matrix]:
    """A matrix for each group that has rows, and one for those of it with a memory."""
    known = {cell.slot: cell for cell in cells}
    for group, memory in itertools.product(GROUPS, (False, True)):
        rows = [row for row in chosen if row.group == group and row.memory == memory]
        if not rows:
            continue
        asked = {row: list(slots(row)) for row in rows}
        targets = tuple(dict.fromkeys(slot.target for found in asked.values() for slot in found))
        kinds = {
            t: tuple(dict.fromkeys(s.kind for f in asked.values() for s in f if s.target == t))
            for t in targets
        }
        yield Matrix(
            _GROUPS[group] + (" with a memory" if memory else ""), targets,
            tuple(f"{_TITLES[t]}: {', '.join(named(k, t) for k in kinds[t])}" for t in targets),
            tuple(
                (row, tuple(tuple(s for s in found if s.target == t) for t in targets))
                for row, found in asked.items()
            ),
            known,
        )  # fmt: skip


def mark(cell: Cell | None) -> str:
    """One character for what was found."""
    if cell is None:
        return UNKNOWN
    if cell.refused:
        return REFUSED
    if cell.passed:
        return KEPT
    return STRAYS if cell.strays else MISSED


def named(kind: Kind, target: str) -> str:
    """A kind of program as a target's users call it."""
    integer = "fixed" if target in FPGAS else "int8"
    return {"integer": integer, "step": f"{integer} step"}.get(kind, kind)


def markdown(found: Iterable[Matrix]) -> Iterator[str]:
    """The lines of a README."""
    for matrix in found:
        head = [matrix.title, *matrix.heads]
        yield f"| {' | '.join(head)} |"
        yield f"| {' | '.join('---' for _ in head)} |"
        for row, places in matrix.rows:
            yield f"| {' | '.join([row.title, *map(matrix.marks, places)])} |"
        yield ""
        yield f"{'; '.join(matrix.tally())}."
        yield ""
    yield "; ".join(f"{mark} {meaning}" for mark, meaning in LEGEND.items()) + "."
