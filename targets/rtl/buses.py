"""Which tensor lies where on the module's buses."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from edgemix.encoding import Encoding, FixedPoint
from edgemix.program import Program, StateSpec, TensorSpec
from edgemix.targets.fpga.precision import needed, raw_bounds
from edgemix.targets.rtl.bits import pack


@dataclass(frozen=True)
class Bus:
    """One tensor of the program on a bus, row-major, the first element in the lowest bits."""

    name: str
    fixed: FixedPoint
    count: int
    offset: int = 0
    """Its lowest bit there."""
    start: str = ""
    """What a state holds at the start, hexadecimal."""

    @property
    def bits(self) -> int:
        """Bits that it takes."""
        return self.count * self.fixed.width


@dataclass(frozen=True)
class Ports:
    """The tensors of a module."""

    takes: tuple[Bus, ...]
    gives: tuple[Bus, ...]
    states: tuple[Bus, ...] = ()


def ports_of(program: Program) -> Ports:
    """Every tensor's place on its bus."""

    def buses(specs: Sequence[TensorSpec], encodings: Sequence[Encoding | None]) -> list[Bus]:
        found, offset = [], 0
        for spec, encoding in zip(specs, encodings, strict=True):
            fixed = needed(encoding, spec.name)
            found.append(Bus(spec.name, fixed, math.prod(spec.shape), offset))
            offset += found[-1].bits
        return found

    states = buses([s.before for s in program.states], program.state_encodings)
    return Ports(
        tuple(buses(program.inputs, program.input_encodings)),
        tuple(buses(program.outputs, program.output_encodings)),
        tuple(
            replace(bus, name=f"state_{bus.name}", start=_start(spec, bus.fixed))
            for spec, bus in zip(program.states, states, strict=True)
        ),
    )


def _start(spec: StateSpec, fixed: FixedPoint) -> str:
    """What a state's register holds at the start, hexadecimal."""
    lowest, highest = raw_bounds(fixed)
    units = np.rint(spec.start().flatten().double().numpy() * 2.0**fixed.fraction)
    packed = pack(np.clip(units, lowest, highest).astype(np.int64)[None], fixed.width)
    return f"{int.from_bytes(packed.tobytes(), 'little'):x}"
