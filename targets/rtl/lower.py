"""Program → Verilog project. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgemix.child import progress
from edgemix.encoding import Encoding
from edgemix.extras import need, versions
from edgemix.program import Program, TensorSpec
from edgemix.targets.base import Artifact, Bind, Binding, StateBinding, bindings
from edgemix.targets.fpga.golden import vectors
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.fpga.parts import part
from edgemix.targets.fpga.precision import needed, plain_type
from edgemix.targets.rtl import golden
from edgemix.targets.rtl.buses import ports_of

MAIN = "project"


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the project; the answer is the Artifact as JSON."""
    need("da4ml", extra="rtl")
    from edgemix.targets.rtl.schedule import FABRICS, schedule
    from edgemix.targets.rtl.trace import trace
    from edgemix.targets.rtl.verilog import write

    program = Program.load(Path(request["program"]))
    hardware = Hardware.from_json(request["hardware"])
    logic = trace(program, hardware, progress)
    family = part(hardware.part).family
    plan = schedule(logic, hardware.clock_ns, FABRICS[family], one_at_a_time=bool(program.states))
    ports = ports_of(program)
    project = Path(request["folder"]) / MAIN
    project.mkdir()
    facts = write(project, logic, plan, ports, family, program.digest[:12])
    golden.write(project / "golden", vectors(program), ports)
    kinds = np.array([op.opcode for op in logic.ops])
    bound = bindings(program, _bind("in_data"), _bind("out_data"))
    artifact = Artifact(
        target="rtl",
        program=program.digest,
        main=MAIN,
        inputs=bound["inputs"],
        outputs=bound["outputs"],
        states=tuple(_held(state) for state in bound["states"]),
        toolchain=versions("torch", "da4ml"),
        facts={
            "part": hardware.part,
            "clock_ns": hardware.clock_ns,
            **asdict(facts),
            "operations": len(logic.ops),
            "multipliers": int((kinds == 7).sum()),
            "tables": int((kinds == 8).sum()),
            "notes": _notes(hardware, facts.register_bits, int((kinds == 7).sum())),
        },
    )
    return artifact.to_json()


def _bind(port: str) -> Bind:
    def bind(_: int, spec: TensorSpec, encoding: Encoding | None) -> Binding:
        return Binding(spec, port, "flat", plain_type(needed(encoding, spec.name)), encoding)

    return bind


def _held(state: StateBinding) -> StateBinding:
    return replace(state, takes=None, gives=replace(state.gives, name="state_data"))


def _notes(hardware: Hardware, register_bits: int, products: int) -> dict[str, str]:
    """What is not as asked for, and what the part plainly has no room for."""
    notes, has = {}, part(hardware.part).available
    if max([hardware.reuse, *(k.reuse or 1 for k in hardware.layers)]) > 1:
        notes["reuse"] = "nothing is reused: the pipeline takes a sample every clock"
    if register_bits > has["ff"]:
        notes["registers"] = (
            f"{register_bits:,} bits do not fit, {hardware.part} has {has['ff']:,} flip-flops"
        )
    if products > has["dsp"]:
        notes["products"] = (
            f"{products:,} of two values, {hardware.part} has {has['dsp']:,} DSP slices"
        )
    return notes
