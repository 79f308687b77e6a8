"""A program with states as firmware: hls4ml's function is one step, a top of ours holds the states.

hls4ml writes a pure function from inputs and states to outputs and states. It is renamed; the top
around it keeps the states in registers, takes a reset, and shows what they hold after the step.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment

from edgemix.files import write_text
from edgemix.program import Program, StateSpec
from edgemix.targets.fpga.precision import needed, result_type
from edgemix.targets.hls4ml.firmware import channels_last


@dataclass(frozen=True)
class Tensor:
    """An argument of the top."""

    name: str
    type: str
    size: int


@dataclass(frozen=True)
class Register:
    """A state in the top."""

    name: str
    type: str
    size: int
    initial: tuple[str, ...]
    """A number for every element, in the firmware's order."""


def arguments(program: Program) -> dict[str, Any]:
    """What the templates need to know about the top's arguments and registers."""
    given = needed(program.input_encodings[0], "the input")
    produced = needed(program.output_encodings[0], "the output")
    return {
        "input": Tensor("x", result_type(given), math.prod(program.inputs[0].shape)),
        "output": Tensor("y", result_type(produced), math.prod(program.outputs[0].shape)),
        "registers": [
            _register(spec, result_type(needed(encoding, f"the state {spec.name}")))
            for spec, encoding in zip(program.states, program.state_encodings, strict=True)
        ],
    }


def write(project: Path, name: str, values: dict[str, Any], pages: Environment) -> None:
    """Turn the function ``name`` of an hls4ml project into the step of a top of the same name."""
    source, header = (project / "firmware" / f"{name}.{end}" for end in ("cpp", "h"))
    step = re.sub(rf"\bvoid {name}\(", f"void {name}_step(", source.read_text())
    # The step is part of the top, which has the ports.
    ports = re.compile(r"(?<=insert IO\n)(?:\s*#pragma HLS [^\n]*\n)+")
    step = ports.sub("    #pragma HLS INLINE\n", step)
    top = pages.get_template("memory.cpp.jinja").render(values)
    write_text(source, f"{step.rstrip()}\n\n{top}")
    declared = re.sub(
        rf"void {name}\((.*?)\);", pages.get_template("memory.h.jinja").render(values).strip(),
        header.read_text(), flags=re.DOTALL,
    )  # fmt: skip
    write_text(header, declared)
    write_text(
        project / f"{name}_bridge.cpp", pages.get_template("memory_bridge.cpp.jinja").render(values)
    )


def _register(spec: StateSpec, kind: str) -> Register:
    start = spec.start().flatten().tolist()
    order = channels_last(spec.shape).ravel()
    placed = [0.0] * len(start)
    for value, place in zip(start, order, strict=True):
        placed[place] = value
    return Register(f"state_{spec.name}", kind, len(start), tuple(f"{v!r}" for v in placed))
