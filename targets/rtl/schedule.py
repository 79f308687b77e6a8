"""Where the registers go: a delay for every operation, and stages that no path outruns.

The delays are estimates of this page, not a vendor's: a LUT and its wire, a carry chain, a
multiplier in a DSP slice, with half a nanosecond a net as routed designs of this size have them.
Place and route decides; ``edgemix`` says so wherever it prints a clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from da4ml.types import CombLogic, Op, minimal_kif

from edgemix.errors import InputError
from edgemix.targets.fpga.parts import Family


@dataclass(frozen=True)
class Fabric:
    """Delays of one FPGA family in ns, a net of average length included."""

    lut: float
    carry: float
    """A carry chain's entry and exit."""
    carry_bit: float
    multiplier: float
    """A product of up to 18 × 25 bits in an unregistered DSP slice."""
    register: float
    """Clock to output and set-up, together."""


FABRICS: dict[Family, Fabric] = {
    "xcup": Fabric(lut=0.45, carry=0.6, carry_bit=0.015, multiplier=3.2, register=0.15),
    "xcu": Fabric(lut=0.55, carry=0.75, carry_bit=0.02, multiplier=3.8, register=0.2),
    "xc7": Fabric(lut=0.9, carry=1.1, carry_bit=0.03, multiplier=5.0, register=0.6),
}
UNCERTAINTY = 0.125
"""Share of the period that is kept free, as hls4ml does."""
_LUT_INPUTS = 6


@dataclass(frozen=True)
class Schedule:
    """In which stage every operation runs, and how long its result is kept."""

    stage: tuple[int, ...]
    last: tuple[int, ...]
    """The last stage that reads each result; one past the last stage for outputs."""
    stages: int
    held: frozenset[int] = frozenset()
    """Operations whose result keeps still until the last stage has read it."""

    def register_bits(self, logic: CombLogic) -> int:
        """Flip-flops that hold results between stages."""
        widths = (0 if op.opcode == 5 else sum(minimal_kif(op.qint)) for op in logic.ops)
        kept = enumerate(zip(widths, self.stage, self.last, strict=True))
        return sum(w * max(b - a, 0) for i, (w, a, b) in kept if i not in self.held)


def schedule(
    logic: CombLogic, clock_ns: float, fabric: Fabric, *, one_at_a_time: bool = False
) -> Schedule:
    """Cut combinational logic into stages of one clock period each.

    First every operation as early as its operands allow, never across the border of a stage. Then,
    from the outputs back, each as late as its readers allow wherever that keeps fewer bits.

    Args:
        logic: the operations.
        clock_ns: the period.
        fabric: its delays.
        one_at_a_time: whether the inputs keep still until the outputs are there.

    Raises:
        InputError: one operation alone takes longer than a period.
    """
    window = clock_ns * (1 - UNCERTAINTY) - fabric.register
    delays = [delay(op, logic, fabric) for op in logic.ops]
    slowest = max(delays, default=0.0)
    if slowest > window:
        raise InputError(
            f"one operation takes {slowest:.2g} ns, a period leaves {max(window, 0):.2g} ns",
            do="use a slower clock",
        )
    ends: list[float] = []
    for op, needed in zip(logic.ops, delays, strict=True):
        start = max((ends[i] for i in operands(op)), default=0.0)
        border = (math.floor(start / window + _EPSILON) + 1) * window
        ends.append(needed + (start if start + needed <= border + _EPSILON else border))
    stages = max((_stage(ends[i], window) for i in logic.out_idxs), default=0) + 1
    readers = _readers(logic)
    outputs = set(logic.out_idxs)
    _sink(logic, ends, delays, window, readers, outputs, stages)
    stage = [_stage(end, window) for end in ends]
    last = [
        stages if i in outputs else max((stage[r] for r in readers[i]), default=stage[i])
        for i in range(len(stage))
    ]
    still = (i for i, op in enumerate(logic.ops) if op.opcode == -1 and one_at_a_time)
    return Schedule(tuple(stage), tuple(last), stages, frozenset(still))


_EPSILON = 1e-6


def _stage(end: float, window: float) -> int:
    """An operation that ends on a border belongs to the stage before it."""
    return max(0, math.floor((end - _EPSILON) / window))


def _readers(logic: CombLogic) -> list[list[int]]:
    readers: list[list[int]] = [[] for _ in logic.ops]
    for i, op in enumerate(logic.ops):
        for operand in operands(op):
            readers[operand].append(i)
    return readers


def _sink(
    logic: CombLogic, ends: list[float], delays: list[float], window: float,
    readers: list[list[int]], outputs: set[int], stages: int,
) -> None:  # fmt: skip
    """Move operations to a later stage, in place, where that keeps fewer bits."""
    widths = [sum(minimal_kif(op.qint)) for op in logic.ops]
    for i in range(len(ends) - 1, -1, -1):
        op = logic.ops[i]
        if op.opcode in (-1, 5) or i in outputs or not readers[i]:
            continue
        end = min(ends[r] - delays[r] for r in readers[i])
        border = math.floor((end - _EPSILON) / window) * window
        if end - delays[i] < border - _EPSILON:
            end = border
        now, later = _stage(ends[i], window), _stage(end, window)
        if later <= now:
            continue
        cost = sum(
            widths[j] * (later - max(others, default=now))
            for j in set(operands(op))
            if logic.ops[j].opcode != 5
            for others in [[_stage(ends[r], window) for r in readers[j] if r != i] + [now]]
            if max(others) < later
        )
        if widths[i] * (later - now) > cost:
            ends[i] = end


def operands(op: Op) -> list[int]:
    """The operations whose results an operation reads."""
    if op.opcode in (-1, 5):
        return []
    found = [i for i in (op.id0, op.id1) if i >= 0]
    if abs(op.opcode) == 6:
        found.append(op.data & 0xFFFFFFFF)
    return found


def delay(op: Op, logic: CombLogic, fabric: Fabric) -> float:
    """How long an operation takes, in ns."""
    width = int(sum(minimal_kif(op.qint)))
    adder = fabric.carry + fabric.carry_bit * width
    match op.opcode:
        case 0 | 1 | 4 | -3 | -2:
            return adder
        case 2 | 10:
            return fabric.lut
        case 6 | -6:
            return fabric.lut if op.opcode == 6 else adder + fabric.lut
        case 7:
            return fabric.multiplier
        case 8:
            inputs = int(sum(minimal_kif(logic.ops[op.id0].qint)))
            return fabric.lut * (1 + max(0, inputs - _LUT_INPUTS) / 2)
        case 9 | -9 if op.data != 0:
            inputs = int(sum(minimal_kif(logic.ops[op.id0].qint)))
            return fabric.lut * max(1, math.ceil(math.log(max(inputs, 2), _LUT_INPUTS)))
        case _:
            return 0.0
