"""Scheduled logic → Verilog project on disk: one module, its tables, testbench, Makefile.

The module loads da4ml, so only the child process imports it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from da4ml.types import CombLogic
from jinja2 import Environment, PackageLoader, StrictUndefined

from edgemix.encoding import FixedPoint
from edgemix.files import write_text
from edgemix.targets.rtl.schedule import Schedule
from edgemix.targets.rtl.stages import Body, kind

NAME = "model"


@dataclass(frozen=True)
class Facts:
    """What a reader of the buses has to know."""

    in_bits: int
    out_bits: int
    stages: int
    register_bits: int


def write(
    project: Path, logic: CombLogic, plan: Schedule, inputs: FixedPoint, outputs: FixedPoint,
    family: str, program: str,
) -> Facts:  # fmt: skip
    """Write the project.

    Args:
        project: a folder that exists.
        logic: the operations.
        plan: their stages.
        inputs: the type of every input.
        outputs: the type of every output.
        family: Yosys's name of the part's family.
        program: what to call the program in comments.
    """
    rtl = project / "rtl"
    rtl.mkdir()
    body = Body(logic, plan, inputs.width)
    tables = {t.name: t for t in body.tables.values()}
    for name, table in tables.items():
        write_text(rtl / f"{name}.mem", table.memory)
    count, results = logic.shape
    facts = Facts(
        count * inputs.width, results * outputs.width, plan.stages,
        count * inputs.width + plan.register_bits(logic) + plan.stages + 1,
    )  # fmt: skip
    values: dict[str, Any] = {
        "program": program, "name": NAME, "facts": facts, "inputs": inputs, "outputs": outputs,
        "count": count, "lines": body.lines(),
        "tables": [t.module() for _, t in sorted(tables.items())],
        "results": _widened(logic, outputs, body.outputs()), "family": family,
        "in_bytes": math.ceil(facts.in_bits / 8), "out_bytes": math.ceil(facts.out_bits / 8),
    }  # fmt: skip
    pages = Environment(
        loader=PackageLoader("edgemix.targets.rtl"), undefined=StrictUndefined,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    for template, path in (
        ("model.v.jinja", rtl / f"{NAME}.v"),
        ("testbench.cpp.jinja", project / "sim" / "testbench.cpp"),
        ("Makefile.jinja", project / "Makefile"),
        ("synth.ys.jinja", project / "synth.ys"),
    ):
        path.parent.mkdir(exist_ok=True)
        write_text(path, pages.get_template(template).render(values))
    return facts


def _widened(logic: CombLogic, fixed: FixedPoint, values: list[str]) -> Iterator[str]:
    """Every output, on the grid of its whole type."""
    for i, (interval, value) in enumerate(zip(logic.out_qint, values, strict=True)):
        shift = fixed.fraction - kind(interval)[2]
        yield f"wire signed [{fixed.width - 1}:0] o{i} = {value} <<< {shift};"
        yield f"assign out_data[{(i + 1) * fixed.width - 1}:{i * fixed.width}] = o{i};"
