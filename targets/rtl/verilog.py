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

from edgemix.files import write_text
from edgemix.targets.rtl.buses import Ports
from edgemix.targets.rtl.schedule import Schedule
from edgemix.targets.rtl.stages import Body, Place, kind

NAME = "model"


@dataclass(frozen=True)
class Facts:
    """What a reader of the buses has to know."""

    in_bits: int
    out_bits: int
    stages: int
    register_bits: int
    state_bits: int = 0


def write(
    project: Path, logic: CombLogic, plan: Schedule, ports: Ports, family: str, program: str
) -> Facts:
    """Write the project.

    Args:
        project: a folder that exists.
        logic: the operations.
        plan: their stages.
        ports: what they take and give, in the order of the logic: inputs, then states, and
            outputs, then states.
        family: Yosys's name of the part's family.
        program: what to call the program in comments.
    """
    rtl = project / "rtl"
    rtl.mkdir()
    body = Body(logic, plan, _places(ports))
    tables = {t.name: t for t in body.tables.values()}
    for name, table in tables.items():
        write_text(rtl / f"{name}.mem", table.memory)
    in_bits, out_bits, state_bits = (
        sum(b.bits for b in buses) for buses in (ports.takes, ports.gives, ports.states)
    )
    flags = plan.stages + (2 if ports.states else 1)
    facts = Facts(
        in_bits, out_bits, plan.stages,
        in_bits + state_bits + plan.register_bits(logic) + flags, state_bits,
    )  # fmt: skip
    values: dict[str, Any] = {
        "program": program, "name": NAME, "facts": facts, "lines": body.lines(),
        "takes": ports.takes, "gives": ports.gives, "states": ports.states,
        "tables": [t.module() for _, t in sorted(tables.items())],
        "results": _widened(logic, ports, body.outputs()), "family": family,
        "in_bytes": math.ceil(in_bits / 8), "out_bytes": math.ceil(out_bits / 8),
        "state_bytes": math.ceil(state_bits / 8),
    }  # fmt: skip
    pages = Environment(
        loader=PackageLoader("edgemix.targets.rtl"), undefined=StrictUndefined,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    for template, path in (
        ("step.v.jinja" if ports.states else "model.v.jinja", rtl / f"{NAME}.v"),
        (
            "testbench_steps.cpp.jinja" if ports.states else "testbench.cpp.jinja",
            project / "sim" / "testbench.cpp",
        ),
        ("Makefile.jinja", project / "Makefile"),
        ("synth.ys.jinja", project / "synth.ys"),
    ):
        path.parent.mkdir(exist_ok=True)
        write_text(path, pages.get_template(template).render(values))
    return facts


def _places(ports: Ports) -> list[Place]:
    """Where each input of the logic is: in the input's register, or in a state's."""
    places = []
    for buses, register in ((ports.takes, "in_r"), (ports.states, None)):
        for bus in buses:
            first = bus.offset if register else 0
            places += [
                (register or bus.name, first + i * bus.fixed.width) for i in range(bus.count)
            ]
    return places


def _widened(logic: CombLogic, ports: Ports, values: list[str]) -> Iterator[str]:
    """Every output and next state, on the grid of its whole type."""
    rest = iter(enumerate(zip(logic.out_qint, values, strict=True)))
    for port, buses in (("out_data", ports.gives), ("state_data", ports.states)):
        for bus in buses:
            for k in range(bus.count):
                i, (interval, value) = next(rest)
                shift = bus.fixed.fraction - kind(interval)[2]
                width, low = bus.fixed.width, bus.offset + k * bus.fixed.width
                yield f"wire signed [{width - 1}:0] o{i} = {value} <<< {shift};"
                yield f"assign {port}[{low + width - 1}:{low}] = o{i};"
