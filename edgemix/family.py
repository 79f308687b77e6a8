"""Families: one model at several widths, and which of them a budget affords."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemix import files
from edgemix.errors import InputError
from edgemix.latency.budget import SIZE, Budget
from edgemix.latency.estimator import Device, Estimator
from edgemix.latency.units import duration, storage
from edgemix.program import Program
from edgemix.quantize.calibrate import Calibration
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.cut import Keep
from edgemix.quantize.prune.family import inherited
from edgemix.quantize.prune.prune import Pruner
from edgemix.quantize.recipe import Recipe
from edgemix.remedies import weight_bytes
from edgemix.report.schema import PrunedPoint

INDEX = "family.json"
PROGRAM, CALIBRATION = "program.edgemix", "calibration.safetensors"
Made = tuple[PrunedPoint, Program, Keep]


@dataclass(frozen=True)
class Member:
    """One width of a family."""

    name: str
    path: Path
    """Its program; the calibration that it inherits lies beside it."""
    macs: int
    parameters: int


def write(folder: Path, pruner: Pruner, made: Iterable[Made], calibration: Calibration) -> None:
    """Write every program with its share of the whole one's calibration, and an index."""
    index: list[dict[str, Any]] = []
    for point, program, keep in made:
        name = f"{len(index)}-{point.macs}"
        place = folder / "family" / name
        place.mkdir(parents=True)
        program.save(place / PROGRAM)
        own = inherited(calibration, pruner.program, program, pruner.units, keep)
        own.save(place / CALIBRATION)
        index.append({"name": name, **point.model_dump(mode="json")})
    files.write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")


def is_family(source: str) -> bool:
    """Whether a source is the folder of a family."""
    return (Path(source) / INDEX).is_file()


def members(folder: Path) -> tuple[Member, ...]:
    """All of a family, the largest first.

    Raises:
        InputError: the index is damaged, or names programs that are not there.
    """
    try:
        entries = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        found = [
            Member(
                str(entry["asked"]),
                folder / "family" / str(entry["name"]) / PROGRAM,
                int(entry["macs"]),
                int(entry["parameters"]),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder / INDEX} is damaged: {error}", do="prune again") from error
    for member in found:
        if not member.path.is_file():
            raise InputError(f"there is no program {member.path}", do="prune again")
    if not found:
        raise InputError(f"{folder / INDEX} names no program", do="prune again")
    return tuple(sorted(found, key=lambda m: -m.macs))


def choose(
    folder: Path,
    budgets: Sequence[Budget],
    devices: Mapping[str, Device],
    recipe: Recipe,
    targets: Sequence[str],
    estimator: Estimator | None,
) -> Member:
    """The largest member of a family that keeps within budgets of size and of devices' time.

    Args:
        folder: the family's.
        budgets: others than these are judged on what is built.
        devices: by the names that budgets call them by.
        recipe: what the members will be quantized by.
        targets: what they will be lowered to.
        estimator: who estimates times.

    Raises:
        InputError: no member does; the message says by how much the smallest misses.
    """
    why = ""
    for member in members(folder):
        program = Program.load(member.path)
        made = quantize(program, Calibration.load(member.path.with_name(CALIBRATION)), recipe)
        missed = [
            f"{storage(size)} of weights for {target}"
            for budget in budgets
            for target in targets
            if budget.what == SIZE and budget.target in (None, target)
            and (size := weight_bytes(program, recipe, target)) > budget.limit
        ]  # fmt: skip
        missed += [
            f"{duration(ms)} on {budget.device}"
            for budget in budgets
            for target in targets
            if budget.device is not None and estimator is not None
            and target in devices[budget.device].targets and budget.target in (None, target)
            and (ms := estimator.estimate(made, devices[budget.device], target).latency.p50_ms)
            > budget.limit
        ]  # fmt: skip
        if not missed:
            return member
        why = f"the smallest takes {', '.join(missed)} by estimate"
    raise InputError(
        f"no member of {folder} meets the budgets: {why}", do="ask for more, or prune further"
    )
