"""Filling the matrix: what is missing is measured, in several processes, and kept as it comes."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

from edgemix import child, files, targets
from edgemix.errors import InputError, ToolError
from edgemix.systems.catalog import FPGAS, PHONES, Slot, same, slots, systems
from edgemix.systems.cell import Cell

RESULTS = Path(__file__).with_name("results.json")
"""Those that come with the package."""

Told = Callable[[Cell], None]


def read(results: Path) -> list[Cell]:
    """The cells that were found so far, each for all rows of its model.

    Raises:
        InputError: the file is no results file.
    """
    if not results.exists():
        return []
    try:
        return _for_all_rows(Cell.from_json(value) for value in json.loads(results.read_text()))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{results} holds no results: {error}", do="give another file, or remove it"
        ) from error


def missing(asked: Iterable[Slot], known: Iterable[Cell]) -> list[Slot]:
    """What is asked for and nobody has measured."""
    done = {cell.slot for cell in known}
    return [slot for slot in asked if slot not in done]


def fill(
    results: Path, wanted: Sequence[Slot], *, jobs: int = 1, limit_s: float = 600.0,
    told: Told = lambda cell: None,
) -> None:  # fmt: skip
    """Measure slots and put their cells into a results file, in the place of older ones.

    Args:
        results: the file; what it has of other slots stays.
        wanted: what to measure.
        jobs: processes at once.
        limit_s: seconds for a cell, on the average of a system's.
        told: called with every cell.

    Raises:
        InputError: the file is no results file, or cannot be written.
    """
    kept = {cell.slot: cell for cell in read(results)}
    lock = threading.Lock()

    def keep(cells: Iterable[Cell]) -> None:
        with lock:
            for cell in _for_all_rows(cells):
                kept[cell.slot] = cell
                told(cell)
            _write(results, kept.values())

    threads = max(1, (os.cpu_count() or 1) // jobs)
    targets.prepare({slot.target for slot in wanted})
    with ThreadPoolExecutor(jobs) as pool:
        done = [pool.submit(_unit, unit, threads, limit_s, keep) for unit in _units(wanted)]
        try:
            for future in done:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _units(wanted: Sequence[Slot]) -> list[list[Slot]]:
    """What one process measures: a system on all phones' targets, or on one FPGA target.

    A model is measured once, however many rows it has.
    """
    units: dict[tuple[str, str], dict[tuple[str, str], Slot]] = {}
    for slot in wanted:
        where = slot.target if slot.target in FPGAS else PHONES[0]
        unit = units.setdefault((same(slot.system)[0], where), {})
        unit.setdefault((slot.target, slot.kind), slot)
    return [list(unit.values()) for unit in units.values()]


def _for_all_rows(cells: Iterable[Cell]) -> list[Cell]:
    rows = (replace(cell, system=key) for cell in cells for key in same(cell.system))
    return list({cell.slot: cell for cell in rows}.values())


def _unit(
    unit: list[Slot], threads: int, limit_s: float, keep: Callable[[list[Cell]], None]
) -> None:
    """A process that dies takes the cell that it was at along, and no other."""
    while unit:
        with tempfile.TemporaryDirectory() as scratch:
            lines = Path(scratch) / "cells"
            lines.touch()
            request = {
                "system": unit[0].system, "slots": [asdict(s) for s in unit],
                "threads": threads, "lines": str(lines),
            }  # fmt: skip
            failure = ""
            try:
                child.call(
                    "edgemix.systems.cell:child", request, tool="a cell",
                    timeout=limit_s * len(unit),
                )  # fmt: skip
            except ToolError as error:
                failure = error.reason
            cells = [Cell.from_json(json.loads(line)) for line in lines.read_text().splitlines()]
        unit = unit[len(cells) :]
        if failure and unit:
            lost = unit.pop(0)
            cells.append(Cell(lost.system, lost.target, lost.kind, lost.recipe, refused=failure))
        keep(cells)


def _write(results: Path, cells: Iterable[Cell]) -> None:
    order = {slot: i for i, slot in enumerate(s for row in systems() for s in slots(row))}
    known = sorted((c for c in cells if c.slot in order), key=lambda c: order[c.slot])
    lines = ",\n".join(json.dumps(cell.to_json()) for cell in known)
    files.write_text(results, f"[\n{lines}\n]\n")
