"""Lookup tables as Verilog modules.

A simulator reads a memory file. Yosys, which would take a table apart into gates and spend most of
its time on it, is given the LUT6 cells and the multiplexers of a slice that a distributed ROM is
made of (Xilinx UG474, "7 Series FPGAs CLB", ROM primitives).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from da4ml.types import CombLogic, Op, minimal_kif


@dataclass(frozen=True)
class Table:
    """One table: words by the bit pattern of the address."""

    words: tuple[int, ...]
    address: int
    """Bits of an address."""
    width: int
    """Bits of a word."""

    @property
    def name(self) -> str:
        """The module's name; the same content has the same name."""
        return f"table_{hashlib.sha256(self.memory.encode()).hexdigest()[:12]}"

    @property
    def memory(self) -> str:
        """The memory file: one hexadecimal word a line."""
        digits = -(-self.width // 4)
        return "".join(f"{word:0{digits}x}\n" for word in self.words)

    def module(self) -> str:
        """The Verilog module."""
        cells = _Cells()
        bits = [
            cells.tree([w >> b & 1 for w in self.words], self.address) for b in range(self.width)
        ]
        listed = "\n".join(f"    {line}" for line in cells.lines)
        return (
            f"module {self.name} (\n    input wire [{self.address - 1}:0] a,\n"
            f"    output wire [{self.width - 1}:0] d\n);\n`ifdef YOSYS\n{listed}\n"
            f"    assign d = {{{', '.join(reversed(bits))}}};\n`else\n"
            f"    reg [{self.width - 1}:0] rom [0:{len(self.words) - 1}];\n"
            f'    initial $readmemh("{self.name}.mem", rom);\n    assign d = rom[a];\n'
            "`endif\nendmodule\n"
        )


def table_of(logic: CombLogic, op: Op) -> Table:
    """The table that an operation reads; patterns that never come read as zero."""
    assert logic.lookup_tables is not None
    source: Any = logic.lookup_tables[op.data]
    given, width = logic.ops[op.id0].qint, sum(int(v) for v in minimal_kif(op.qint))
    mask = (1 << width) - 1
    words = tuple(0 if np.isnan(w) else int(w) & mask for w in source.padded_table(given))
    return Table(words, sum(int(v) for v in minimal_kif(given)), width)


class _Cells:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def tree(self, bits: list[int], address: int) -> str:
        """The net that carries ``bits[a]``."""
        if len(set(bits)) == 1:
            return f"1'b{bits[0]}"
        if address <= 6:
            return self._lut(bits, address)
        half = len(bits) // 2
        if bits[:half] == bits[half:]:
            return self.tree(bits[:half], address - 1)
        low, high = (self.tree(part, address - 1) for part in (bits[:half], bits[half:]))
        select = f"a[{address - 1}]"
        if address > 8 or "'" in low + high:
            return self._net(f"{select} ? {high} : {low}")
        net = self._net()
        self.lines.append(
            f"MUXF{address} m{net} (.O({net}), .I0({low}), .I1({high}), .S({select}));"
        )
        return net

    def _lut(self, bits: list[int], address: int) -> str:
        repeated = bits * (64 >> address)
        init = sum(bit << i for i, bit in enumerate(repeated))
        pins = ", ".join(f".I{i}({f'a[{i}]' if i < address else 0})" for i in range(6))
        net = self._net()
        self.lines.append(f"LUT6 #(.INIT(64'h{init:016x})) l{net} (.O({net}), {pins});")
        return net

    def _net(self, value: str | None = None) -> str:
        net = f"n{len(self.lines)}"
        self.lines.append(f"wire {net};" if value is None else f"wire {net} = {value};")
        return net


def tables_of(logic: CombLogic) -> Iterator[tuple[int, Table]]:
    """Every operation that reads a table, with it."""
    known: dict[object, Table] = {}
    for i, op in enumerate(logic.ops):
        if op.opcode == 8:
            key = (op.data, logic.ops[op.id0].qint, op.qint)
            if key not in known:
                known[key] = table_of(logic, op)
            yield i, known[key]
