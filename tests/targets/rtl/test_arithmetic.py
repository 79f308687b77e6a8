"""Rounding, saturation and division as logic: every input of a format, through Verilator."""

from __future__ import annotations

import subprocess
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from da4ml.trace import HWConfig, comb_trace

from edgemix.encoding import FixedPoint
from edgemix.errors import InputError
from edgemix.targets.rtl import arithmetic, bits, support, tables, trace, verilog
from edgemix.targets.rtl.buses import Bus, Ports
from edgemix.targets.rtl.schedule import FABRICS, operands, schedule

HARDWARE = HWConfig(-1, -1, -1)
GIVEN = FixedPoint(10, 3, True)
WANTED = FixedPoint(24, 12, True)
RAW = np.arange(-512, 512)
FORMATS = 120


def cases(seed: int) -> tuple[list[object], list[list[float]], list[str]]:
    """Random formats for sums, negations, products and quotients, with the exact answers."""
    random = np.random.default_rng(seed)
    (x,) = arithmetic.variables(GIVEN, 1, HARDWARE)
    values = [Fraction(int(v)) / 2**GIVEN.fraction for v in RAW]
    outputs, expected, names = [], [], []
    for i in range(FORMATS):
        fixed = FixedPoint(
            int(random.integers(2, 11)), int(random.integers(-3, 9)), bool(random.integers(2))
        )
        if fixed.fraction > WANTED.fraction:
            continue
        mode, logic, exact, divisor = i % 6, x, values, 1
        constant = int(random.integers(-60, 60))
        match mode:
            case 1:
                logic, exact = -x, [-v for v in values]
            case 2:
                divisor = int(random.integers(1, 30))
            case 3:
                logic, exact = x + constant / 8, [v + Fraction(constant, 8) for v in values]
            case 4:
                logic = arithmetic.scaled(x, constant / 16)
                exact = [v * Fraction(constant, 16) for v in values]
            case 5:
                logic, exact = x * x, [v * v for v in values]
        logic = arithmetic.number(logic, HARDWARE)
        if divisor > 1:
            logic = arithmetic.divide(logic, divisor, fixed.fraction)
        outputs.append(arithmetic.fit(logic, fixed))
        top = 1 << (fixed.width - fixed.signed)
        low, high = -top * fixed.signed, top - 1
        scale = Fraction(2) ** fixed.fraction
        rounded = [max(low, min(high, round(v / divisor * scale))) for v in exact]
        expected.append([float(r / scale) for r in rounded])
        names.append(f"{('same', 'negated', 'divided', 'sum', 'product', 'square')[mode]} {fixed}")
    return [x, outputs], expected, names


@pytest.mark.parametrize("seed", [0, 1])
def test_every_input_is_rounded_and_saturated_as_exact_numbers_are(
    seed: int, tmp_path: Path
) -> None:
    (x, outputs), expected, names = cases(seed)
    logic = comb_trace([x], outputs)
    plan = schedule(logic, 5.0, FABRICS["xcup"])
    buses = (Bus("x", GIVEN, 1),), (Bus("y", WANTED, len(names), 0),)
    facts = verilog.write(tmp_path, logic, plan, Ports(*buses), "xcup", "unit")
    assert facts.stages > 1
    bits.pack(RAW[:, None] & 1023, GIVEN.width).tofile(tmp_path / "in.bin")
    subprocess.run(["make", "-C", str(tmp_path), "simulate"], check=True, capture_output=True)
    subprocess.run(
        [str(tmp_path / "build" / "simulate"), "../in.bin", "../out.bin"],
        cwd=tmp_path / "rtl", check=True, capture_output=True,
    )  # fmt: skip
    raw = np.fromfile(tmp_path / "out.bin", np.uint8).reshape(len(RAW), -1)
    found = bits.unpack(raw, len(names), WANTED)
    wrong = [
        n for n, a, b in zip(names, found.T, expected, strict=True) if not np.array_equal(a, b)
    ]
    assert wrong == []
    assert len(names) > 90


def test_packed_bits_come_back() -> None:
    random = np.random.default_rng(0)
    for width, signed in ((1, False), (7, True), (8, False), (13, True)):
        fixed = FixedPoint(width, width, signed)
        low = -(1 << (width - 1)) if signed else 0
        integers = random.integers(low, low + (1 << width), (9, 5))
        assert np.array_equal(bits.unpack(bits.pack(integers, width), 5, fixed), integers)


def test_no_path_is_longer_than_a_period_and_results_are_kept_until_read() -> None:
    (x, outputs), _, _ = cases(2)
    logic = comb_trace([x], outputs)
    stages = []
    for clock in (20.0, 10.0, 5.0, 4.0):
        plan = schedule(logic, clock, FABRICS["xcup"])
        stages.append(plan.stages)
        for i, op in enumerate(logic.ops):
            for operand in operands(op):
                assert plan.stage[operand] <= plan.stage[i] <= plan.last[operand]
        assert all(plan.last[i] == plan.stages for i in logic.out_idxs)
    assert stages == sorted(stages)
    assert stages[-1] > stages[0]


def test_a_clock_too_fast_for_one_operation_is_refused() -> None:
    (x,) = arithmetic.variables(GIVEN, 1, HARDWARE)
    logic = comb_trace([x], [x * x])
    with pytest.raises(InputError, match="one operation takes 5 ns, a period leaves") as refused:
        schedule(logic, 5.0, FABRICS["xc7"])
    assert refused.value.do == "use a slower clock"


def test_tables_of_cells_hold_the_words_of_their_memory_file() -> None:
    random = np.random.default_rng(0)
    for address in (1, 5, 6, 7, 8, 10):
        words = tuple(int(w) for w in random.integers(0, 1 << 9, 1 << address))
        table = tables.Table(words, address, 9)
        assert [int(line, 16) for line in table.memory.split()] == list(words)
        text = table.module()
        assert "LUT6" in text
        assert ("MUXF7" in text) == (address > 6)
        assert ("MUXF8" in text) == (address > 7)


def test_what_support_lists_is_what_the_tracer_has() -> None:
    assert set(trace.OPERATORS) | set(trace.AVERAGES) == support.OPERATORS
    assert set(trace.AVERAGES) == support.AVERAGING
