"""One cell: a program lowered, run in the target's own runtime, and compared."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from edgemix import proof, rewrites, targets
from edgemix.errors import EdgemixError, UnsupportedError
from edgemix.program import Program
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.stray import strayed
from edgemix.systems import cases, catalog
from edgemix.systems.cases import Case
from edgemix.systems.catalog import Kind, Slot
from edgemix.targets.base import Arrays, Target


@dataclass(frozen=True)
class Cell:
    """What was found for one slot."""

    system: str
    target: str
    kind: Kind
    recipe: str
    runtime: str = ""
    """Whose numbers these are."""
    contract: str = ""
    passed: bool = False
    relative: float | None = None
    """The largest difference, as a share of the largest output."""
    identical: float | None = None
    within: float | None = None
    """Share of outputs within 1 LSB; of real numbers None."""
    strays: bool = False
    """Whether the program misses the contract against itself, see ``edgemix.stray``."""
    refused: str = ""
    """Why there are no numbers."""
    parameters: int = 0
    size: int = 0
    """Of the artifact, in bytes."""
    seconds: float = 0.0
    """Quantizing, lowering, running and comparing."""

    @property
    def slot(self) -> Slot:
        """Its place."""
        return Slot(self.system, self.target, self.kind)

    @property
    def fidelity(self) -> str:
        """How near it came, for people; of a refused one nothing."""
        if self.relative is None or self.identical is None:
            return ""
        if self.within is None:
            return f"{self.relative:.1e} of the largest output"
        return f"{self.identical:.2%} identical, {self.within:.2%} within 1 LSB"

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Cell:
        """The cell that :meth:`to_json` wrote."""
        known = {f.name for f in fields(cls)}
        return cls(**{k: v for k, v in value.items() if k in known})


def measured(system: catalog.System, wanted: Iterable[Slot]) -> Iterator[Cell]:
    """The cells of some slots of a system; those of one kind share program and calibration."""
    made: dict[bool, Case] = {}
    ready: dict[tuple[bool, tuple[str, ...]], tuple[Program, Calibration]] = {}
    for slot in wanted:
        start = time.perf_counter()
        cell = Cell(slot.system, slot.target, slot.kind, slot.recipe)
        stepwise = slot.kind in catalog.STEPS
        recipe = Recipe.load(slot.recipe)
        try:
            if stepwise not in made:
                made[stepwise] = cases.step(system) if stepwise else cases.whole(system)[0]
            case = made[stepwise]
            if (stepwise, recipe.split) not in ready:
                program = rewrites.standard(case.program, recipe.split)
                observed = calibrate(program, [case.calibration])
                ready[stepwise, recipe.split] = program, observed
            program = quantize(*ready[stepwise, recipe.split], recipe)
            cell = replace(cell, parameters=case.program.parameters)
            cell = _proven(cell, targets.load(slot.target), program, case)
        except EdgemixError as error:
            cell = replace(cell, refused=error.reason)
        yield replace(cell, seconds=round(time.perf_counter() - start, 1))


def lowered(target: Target, program: Program, samples: Arrays) -> tuple[Arrays, int]:
    """What a target's artifact gives, and its size in bytes.

    Raises:
        EdgemixError: the target cannot take the program, or a tool failed.
    """
    findings = target.supports(program)
    if findings:
        raise UnsupportedError("; ".join(map(str, findings)))
    with tempfile.TemporaryDirectory() as scratch:
        file, folder = Path(scratch) / "program.edgemix", Path(scratch) / "made"
        program.save(file)
        folder.mkdir()
        artifact = target.lower(program, file, folder)
        outputs = target.run(artifact, folder, samples)
        if outputs is None:
            raise UnsupportedError(f"this machine cannot run {target.title}'s artifacts")
        return outputs, sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def _proven(cell: Cell, target: Target, program: Program, case: Case) -> Cell:
    found, size = lowered(target, program, (case.samples.numpy(),))
    expected = case.expected(program)
    contract = target.promise(program)
    encodings = (*program.output_encodings, *program.state_encodings)
    near = [
        proof.compare(a.numpy(), b, encoding, contract)
        for a, b, encoding in zip(expected, found, encodings, strict=True)
    ]
    passed = all(n.passed for n in near)
    strays = False
    if not passed:
        own = strayed(program, case.samples)
        strays = not all(
            proof.compare(a.numpy(), b.numpy(), encoding, contract).passed
            for a, b, encoding in zip(expected, own, encodings, strict=True)
        )
    return replace(
        cell, runtime=target.runtime, contract=str(contract), passed=passed, strays=strays,
        relative=max(n.worst_relative for n in near), identical=min(n.identical for n in near),
        within=None if encodings[0] is None else min(n.within for n in near), size=size,
    )  # fmt: skip


def child(request: Mapping[str, Any]) -> dict[str, Any]:
    """Measure slots of one system in a process of its own, a line of JSON a cell as it is found."""
    torch.set_num_threads(request["threads"])
    system = catalog.system(request["system"])
    wanted = [Slot(**slot) for slot in request["slots"]]
    with Path(request["lines"]).open("a") as lines:
        for cell in measured(system, wanted):
            lines.write(json.dumps(cell.to_json()) + "\n")
            lines.flush()
    return {}
