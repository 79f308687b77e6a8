"""Scheduled logic → Verilog, an assignment for every operation.

Every wire is as wide as its interval needs and declared signed where it can be negative. Verilog
extends operands to the width of the assigned wire, by their sign only if all of them are signed:
unsigned ones get a zero in front.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from da4ml.types import CombLogic, Op, minimal_kif

from edgemix.targets.rtl.schedule import Schedule
from edgemix.targets.rtl.tables import tables_of

Place = tuple[str, int]
"""A register of the module and the lowest bit there."""


class Body:
    """The assignments of the module: one wire an operation, one register a stage that it waits."""

    def __init__(self, logic: CombLogic, plan: Schedule, inputs: Sequence[Place]) -> None:
        """Take the logic.

        Args:
            logic: the operations.
            plan: the stage of each.
            inputs: where each input comes from.
        """
        self.logic = logic
        self.tables = dict(tables_of(logic))
        self.kinds = [kind(op.qint) for op in logic.ops]
        self.widths = [sum(k) for k in self.kinds]
        self._plan = plan
        self._inputs = inputs
        self._at = 0

    def lines(self) -> Iterator[str]:
        """Wires and registers."""
        for i, op in enumerate(self.logic.ops):
            if not self.widths[i] or op.opcode == 5:
                continue
            self._at = self._plan.stage[i]
            sign = "signed " if self.kinds[i][0] else ""
            declared = f"{sign}[{self.widths[i] - 1}:0]"
            if op.opcode == 8:
                table = self.tables[i].name
                yield f"wire {declared} v{i}; {table} t{i} ({self._name(op.id0)}, v{i});"
            elif (split := self._split_sum(i, op)) is not None:
                high, low, bits = split
                above = f"{sign}[{self.widths[i] - bits - 1}:0]"
                yield f"wire {above} h{i} = {high}; wire {declared} v{i} = {{h{i}, {low}}};"
            else:
                yield f"wire {declared} v{i} = {self._expression(i, op)};"
            if i in self._plan.held:
                continue
            before = f"v{i}"
            for stage in range(self._at + 1, self._plan.last[i] + 1):
                # A process each: Yosys takes quadratic time over a long one.
                kept = f"v{i}_{stage}"
                yield f"reg {declared} {kept}; always @(posedge clk) {kept} <= {before};"
                before = kept

    def outputs(self) -> list[str]:
        """An expression for every output, exact in as many bits as its interval needs."""
        self._at = self._plan.stages
        return [
            f"-{self._value(i)}" if negated else self._value(i)
            for i, negated in zip(self.logic.out_idxs, self.logic.out_negs, strict=True)
        ]

    def _split_sum(self, i: int, op: Op) -> tuple[str, str, int] | None:
        """A sum whose lowest bits are those of one operand: its upper part, they, how many.

        The adder is so much shorter; synthesis does not see it by itself.
        """
        if op.opcode not in (0, 1):
            return None
        shift = op.data + self.kinds[op.id0][2] - self.kinds[op.id1][2]
        sign = "+" if op.opcode == 0 else "-"
        if shift > 0:
            kept, high = op.id0, f"({self._value(op.id0)} >>> {shift}) {sign} {self._value(op.id1)}"
        elif shift < 0 and op.opcode == 0:
            kept, high = op.id1, f"{self._value(op.id0)} + ({self._value(op.id1)} >>> {-shift})"
        else:
            return None
        bits = abs(shift)
        if self.widths[kept] < bits or self.widths[i] <= bits or self.logic.ops[kept].opcode == 5:
            return None
        return high, f"{self._name(kept)}[{bits - 1}:0]", bits

    def _expression(self, i: int, op: Op) -> str:
        width = self.widths[i]
        fraction = self.kinds[i][2]
        match op.opcode:
            case -1:
                bus, start = self._inputs[op.id0]
                return f"{bus}[{start + width - 1}:{start}]"
            case 0 | 1:
                shift = op.data + self.kinds[op.id0][2] - self.kinds[op.id1][2]
                sign = "+" if op.opcode == 0 else "-"
                return f"{self._up(op.id0, -shift)} {sign} {self._up(op.id1, shift)}"
            case 4:
                low = self._up(op.id0, fraction - self.kinds[op.id0][2])
                return f"{low} {'-' if op.data < 0 else '+'} {self._number(abs(op.data))}"
            case 5:
                raise ValueError("a constant stands where it is read")
            case 3 | -3 | 2 | -2:
                return self._cut(i, op)
            case 6 | -6:
                return self._choice(i, op)
            case 7:
                return f"{self._value(op.id0)} * {self._value(op.id1)}"
            case 9 | -9:
                if op.opcode == -9 and op.data != 1:
                    raise ValueError("bits of a negated value: use arithmetic.positive() before")
                bits = self._name(op.id0)
                return {0: f"~{self._value(op.id0)}", 1: f"|{bits}", 2: f"&{bits}"}[op.data]
            case 10:
                return self._bitwise(op)
        raise ValueError(f"da4ml made an operation that edgemix does not know: {op}")

    def _cut(self, i: int, op: Op) -> str:
        """A value with bits dropped at either end, or a ReLU of one."""
        drop = self.kinds[op.id0][2] - self.kinds[i][2]
        value = self._value(op.id0)
        negative = f"{self._name(op.id0)}[{self.widths[op.id0] - 1}]"
        if op.opcode < 0:
            # One bit more than the operand: the most negative number has no positive twin there.
            zero = f"$signed({{{self.widths[op.id0] + 2}{{1'b0}}}})"
            value = f"({zero} - {value})"
            negative = f"({value} < 0)"
        shifted = f"({value} >>> {drop})" if drop > 0 else f"({value} <<< {-drop})"
        if abs(op.opcode) == 2 and self._can_be_negative(op):
            return f"{negative} ? {self._number(0)} : {shifted}"
        return shifted

    def _can_be_negative(self, op: Op) -> bool:
        interval = self.logic.ops[op.id0].qint
        return bool(interval.min < 0 if op.opcode > 0 else interval.max > 0)

    def _choice(self, i: int, op: Op) -> str:
        key = op.data & 0xFFFFFFFF
        shift = (op.data >> 32) & 0xFFFFFFFF
        shift = shift - (1 << 32) if shift >= 1 << 31 else shift
        fraction = self.kinds[i][2]
        first = self._up(op.id0, fraction - self.kinds[op.id0][2])
        second = self._up(op.id1, fraction - self.kinds[op.id1][2] + shift)
        if op.opcode == -6:
            second = f"-{second}"
        return f"{self._name(key)}[{self.widths[key] - 1}] ? {first} : {second}"

    def _bitwise(self, op: Op) -> str:
        shift = ((op.data & 0xFFFFFFFF) + (1 << 31)) % (1 << 32) - (1 << 31)
        shift += self.kinds[op.id0][2] - self.kinds[op.id1][2]
        first, second = self._up(op.id0, -shift), self._up(op.id1, shift)
        if (op.data >> 32) & 1:
            first = f"(-{first})"
        if (op.data >> 33) & 1:
            second = f"(-{second})"
        return f"{first} {'&|^'[(op.data >> 56) & 0xFF]} {second}"

    def _value(self, i: int) -> str:
        if not self.widths[i]:
            return self._number(0)
        if self.logic.ops[i].opcode == 5:
            return self._number(self.logic.ops[i].data)
        name = self._name(i)
        return name if self.kinds[i][0] else f"$signed({{1'b0, {name}}})"

    def _name(self, i: int) -> str:
        """The result of operation i as the current stage sees it."""
        now = self._at == self._plan.stage[i] or i in self._plan.held
        return f"v{i}" if now else f"v{i}_{self._at}"

    def _up(self, i: int, bits: int) -> str:
        return f"({self._value(i)} <<< {bits})" if bits > 0 else self._value(i)

    @staticmethod
    def _number(value: int) -> str:
        sign = "-" if value < 0 else ""
        return f"{sign}{abs(value).bit_length() + 1}'sd{abs(value)}"


def kind(interval: Any) -> tuple[int, int, int]:
    """Sign bit, integer bits without it, and bits right of the point that an interval needs."""
    signed, integer, fraction = minimal_kif(interval)
    return int(signed), int(integer), int(fraction)
