"""One system through targets: what each artifact gives beside the program, and beside another."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgemix import graph as g
from edgemix import proof, rewrites, targets
from edgemix.errors import EdgemixError
from edgemix.exporting import export, quiet
from edgemix.extras import need
from edgemix.program import Program
from edgemix.proof import Contract
from edgemix.quantize.calibrate import Calibration, calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.stray import strayed
from edgemix.systems.cell import lowered
from edgemix.targets.base import Adopting, Arrays, Target
from tests.benchmarks.systems.cases import Case, case

PROGRAM, PLAIN = "program", "coremltools"
ROUNDED = "the program with one integer of each layer one off"
HALVED = "the program with its input and weights rounded to 16 bits"
_FLOAT32 = Contract("relative", bound=1e-4)
"""What is asked of float models in 32 bits."""


@dataclass(frozen=True)
class Row:
    """One comparison."""

    system: str
    recipe: str
    target: str
    against: str = PROGRAM
    """Or another target, which ran the same program."""
    contract: str = ""
    relative: float | None = None
    """The largest difference, as a share of the largest output."""
    identical: float | None = None
    within: float | None = None
    """Share of outputs within 1 LSB; of real numbers None."""
    passed: bool = False
    refused: str = ""
    seconds: float = 0.0
    size: int = 0
    """Of the artifact, in bytes."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def measured(system: str, recipes: Sequence[str], names: Sequence[str]) -> Iterator[Row]:
    """Every recipe on every target; of float32, plain coremltools' package as well."""
    found = case(system)
    ready: dict[tuple[str, ...], tuple[Program, Calibration]] = {}
    for name in recipes:
        recipe = Recipe.load(name)
        try:
            if recipe.split not in ready:
                program = rewrites.standard(found.program, recipe.split)
                ready[recipe.split] = program, calibrate(program, [found.calibration])
            coded = quantize(*ready[recipe.split], recipe)
        except EdgemixError as error:
            yield Row(system, name, PROGRAM, refused=error.reason)
            continue
        if recipe.activations and not coded.states:
            yield _rounded(system, name, found, coded)
        if recipe.floats == "float16" and not coded.states:
            yield _halved(system, name, found, coded)
        given: dict[str, Arrays] = {}
        for target in (targets.load(n) for n in names):
            if target.name == "coreai" and recipe.floats != "float32":
                continue  # its 16 bits are the device's choice: nothing new is run here
            row, outputs = _one(system, name, target, found, coded)
            yield row
            for other, theirs in given.items() if outputs else ():
                contract = _asked(coded, target)
                yield _compared(row, coded, theirs, outputs, contract, against=other)
            if outputs:
                given[target.name] = outputs
        if name == "float32" and "coreml" in names and found.module is not None:
            yield _plain(system, found)


def _asked(program: Program, target: Target) -> Contract:
    if program.floats == "float32" and program.output_encodings[0] is None:
        return _FLOAT32
    return target.promise(program)


def _one(
    system: str, recipe: str, target: Target, of: Case, program: Program
) -> tuple[Row, Arrays]:
    row = Row(system, recipe, target.name)
    start = time.perf_counter()
    try:
        outputs, size = lowered(target, program, (of.samples.numpy(),))
    except EdgemixError as error:
        return _refused(row, error.reason, start), ()
    seconds = round(time.perf_counter() - start, 1)
    row = Row(system, recipe, target.name, seconds=seconds, size=size)
    expected = tuple(t.numpy() for t in of.expected(program))
    return _compared(row, program, expected, outputs, _asked(program, target)), outputs


def _rounded(system: str, recipe: str, of: Case, program: Program) -> Row:
    """How far the program itself strays, see ``edgemix.stray``."""
    row = Row(system, recipe, PROGRAM)
    expected = [t.numpy() for t in program.run(of.samples)[:1]]
    contract = targets.load("coreml").promise(program)
    found = strayed(program, of.samples)[0].numpy()
    return _compared(row, program, expected, (found,), contract, ROUNDED)


def _halved(system: str, recipe: str, of: Case, program: Program) -> Row:
    """How far the program strays in 32 bits from what 16 bits are given to begin with.

    No implementation in 16 bits can be nearer than by chance.
    """
    module = copy.deepcopy(program.module())  # which shares its weights with the program
    with torch.no_grad():
        for node in module.graph.find_nodes(op="get_attr"):
            values = g.constant(module, node)
            if values.is_floating_point():
                values.copy_(values.half().float())
        pieces = of.samples.half().float().split(program.inputs[0].shape[0])
        outputs = [module(x) for x in pieces]
    found = torch.cat([x[0] if isinstance(x, tuple) else x for x in outputs])
    row = Row(system, recipe, PROGRAM)
    expected = [t.numpy() for t in program.run(of.samples)[:1]]
    contract = targets.load("coreml").promise(program)
    return _compared(row, program, expected, (found.numpy(),), contract, HALVED)


def _plain(system: str, of: Case) -> Row:
    """The model as coremltools alone converts it, in 32 bits."""
    row = Row(system, "float32", PLAIN)
    start = time.perf_counter()
    coreml, ct = targets.load("coreml"), need("coremltools", extra="coreml")
    assert isinstance(coreml, Adopting) and of.module is not None
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.mlpackage"
        try:
            with quiet():
                exported = export(of.module, of.program.example()).run_decompositions({})
                ct.convert(exported, compute_precision=ct.precision.FLOAT32).save(str(path))
        except Exception as error:  # coremltools raises whatever it likes
            return _refused(row, f"{type(error).__name__}: {error}", start)
        try:
            artifact = coreml.adopt(path, of.program)
            outputs = coreml.run(artifact, path.parent, (of.samples.numpy(),))
        except EdgemixError as error:
            return _refused(row, f"by edgemix: {error.reason}", start)
    assert outputs is not None
    with torch.no_grad():
        pieces = [of.module(x) for x in of.samples.split(of.program.inputs[0].shape[0])]
    row = Row(system, "float32", PLAIN, seconds=round(time.perf_counter() - start, 1))
    return _compared(row, of.program, (torch.cat(pieces).numpy(),), outputs, _FLOAT32)


def _refused(row: Row, why: str, start: float) -> Row:
    seconds = round(time.perf_counter() - start, 1)
    return Row(row.system, row.recipe, row.target, refused=why[:400], seconds=seconds)


def _compared(
    row: Row, program: Program, expected: Sequence[npt.NDArray[np.float32]], found: Arrays,
    contract: Contract, against: str = PROGRAM,
) -> Row:  # fmt: skip
    """The worst of all outputs; of a step, states are held to the outputs' contract."""
    encodings = (*program.output_encodings, *program.state_encodings)[: len(found)]
    near = [
        proof.compare(a, b, encoding, contract)
        for a, b, encoding in zip(expected, found, encodings, strict=True)
    ]
    whole = all(encoding is not None for encoding in encodings)
    return Row(
        row.system, row.recipe, row.target, against, str(contract),
        relative=max(n.worst_relative for n in near), identical=min(n.identical for n in near),
        within=min(n.within for n in near) if whole else None,
        passed=all(n.passed for n in near), seconds=row.seconds, size=row.size,
    )  # fmt: skip
