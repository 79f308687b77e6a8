"""Reports as Vivado HLS, Vitis HLS and Vivado lay them out, with facts of the test's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

Rows = Sequence[Sequence[object]]


def table(head: Sequence[Sequence[str]], rows: Rows, indent: str = "    ") -> str:
    """A table with as many header lines as given; rows of one word are borders."""
    columns = len(head[-1])
    width = [
        max(len(str(line[i])) for line in (head[-1], *[r for r in rows if len(r) == columns])) + 6
        for i in range(columns)
    ]
    border = indent + "+" + "+".join("-" * w for w in width) + "+"
    lines = [border]
    for line in head:
        cells, place = [], 0
        for text in line:
            title, _, spans = text.partition("@")
            span = int(spans or 1)
            room = sum(width[place : place + span]) + span - 1
            cells.append(title.center(room))
            place += span
        lines.append(indent + "|" + "|".join(cells) + "|")
    lines.append(border)
    for row in rows:
        if len(row) == 1:
            lines.append(border)
        else:
            cells = [str(c).rjust(w) for c, w in zip(row, width, strict=True)]
            lines.append(indent + "|" + "|".join(cells) + "|")
    return "\n".join([*lines, border]) + "\n"


def csynth(
    top: str = "firmware", part: str = "xc7z020-clg400-1", clock: float = 10.0,
    tool: str = "Vivado HLS", cycles: tuple[object, object] = (21, 23), interval: int = 4,
    estimated: float = 7.25, names: Sequence[str] = ("BRAM_18K", "DSP48E", "FF", "LUT", "URAM"),
    used: Sequence[object] = (2, 73, 7969, 2532, 0), config: int = 2,
) -> str:  # fmt: skip
    """A report of C synthesis; older tools say DSP48E, newer ones DSP and move columns."""
    module = f"dense_ap_fixed_config{config}_s"
    return "\n".join(
        [
            "\n\n" + "=" * 64, f"== {tool} Report for '{top}'", "=" * 64,
            "* Date:           Sat Nov 21 00:00:00 2026\n",
            "* Version:        2020.1 (Build 1)", "* Project:        firmware_prj",
            "* Solution:       solution1", "* Product family: zynq",
            f"* Target device:  {part}\n\n", "=" * 64, "== Performance Estimates", "=" * 64,
            "+ Timing: ", "    * Summary: ",
            table(
                [["Clock", "Target", "Estimated", "Uncertainty"]],
                [["ap_clk", f"{clock:.2f} ns", f"{estimated:.3f} ns", f"{clock / 8:.2f} ns"]],
            ),
            "+ Latency: ", "    * Summary: ",
            table(
                [
                    ["Latency (cycles)@2", "Latency (absolute)@2", "Interval@2", "Pipeline"],
                    ["min", "max", "min", "max", "min", "max", "Type"],
                ],
                [[*cycles, "0.1 us", "0.1 us", interval, interval, "dataflow"]],
            ),
            "    + Detail: ", "        * Instance: ",
            table(
                [
                    ["", "", "Latency (cycles)@2", "Latency (absolute)@2", "Interval@2", "Pipeline"],
                    ["Instance", "Module", "min", "max", "min", "max", "min", "max", "Type"],
                ],
                [[f"{module}_U0", module, 7, 7, "70 ns", "70 ns", 7, 7, "none"]], "        ",
            ),
            "        * Loop: ", "        N/A\n\n", "=" * 64, "== Utilization Estimates", "=" * 64,
            "* Summary: ",
            table(
                [["Name", *names]],
                [
                    ["Expression", *["-"] * len(names)], ["Instance", *used], ["-"],
                    ["Total", *used], ["-"], ["Available", *[280, 220, 106400, 53200, 0][: len(names)]],
                    ["-"], ["Utilization (%)", *[1] * len(names)],
                ], "",
            ),
            "+ Detail: ", "    * Instance: ",
            table(
                [["Instance", "Module", *names]],
                [[f"{module}_U0", module, *used], ["-"], ["Total", "", *used]],
            ),
        ]
    )  # fmt: skip


def utilization(
    design: str = "firmware", part: str = "7z020clg400-1", luts: int = 1526,
    family: str = "Slice",
) -> str:  # fmt: skip
    """A report of Vivado's report_utilization."""
    head = [["Site Type", "Used", "Fixed", "Available", "Util%"]]

    def row(name: str, count: float, there: int) -> list[object]:
        return [name, count, 0, there, f"{100 * count / there:.2f}"]

    return "\n".join(
        [
            "Copyright 1986-2020 Xilinx, Inc. All Rights Reserved.", "-" * 40,
            "| Tool Version : Vivado v.2020.1 (lin64) Build 1",
            "| Command      : report_utilization -file vivado_synth.rpt",
            f"| Design       : {design}", f"| Device       : {part}",
            "| Design State : Synthesized", "-" * 40, "\n1. Slice Logic", "--------------\n",
            table(
                head,
                [row(f"{family} LUTs*", luts, 53200), row("  LUT as Logic", 1478, 53200),
                 row(f"{family} Registers", 2428, 106400)], "",
            ),
            "2. Memory", "---------\n",
            table(head, [row("Block RAM Tile", 1.5, 140), row("  RAMB18", 3, 280)], ""),
            "3. DSP", "------\n", table(head, [row("DSPs", 66, 220)], ""),
        ]
    )  # fmt: skip


COSIM = """
Simulation result of DUT firmware
+----------+----------+-----------------------------------------------+-----------------------------------------------+
|          |          |                    Latency                    |                    Interval                   |
+   RTL    +  Status  +-----------------------------------------------+-----------------------------------------------+
|          |          |      min      |      avg      |      max      |      min      |      avg      |      max      |
+----------+----------+---------------+---------------+---------------+---------------+---------------+---------------+
|      VHDL|        NA|             NA|             NA|             NA|             NA|             NA|             NA|
|   Verilog|      Pass|             19|             19|             20|              4|              4|              5|
+----------+----------+---------------+---------------+---------------+---------------+---------------+---------------+
"""


@pytest.fixture(scope="session")
def csynth_report() -> Callable[..., str]:
    """:func:`csynth`."""
    return csynth


@pytest.fixture(scope="session")
def utilization_report() -> Callable[..., str]:
    """:func:`utilization`."""
    return utilization


@pytest.fixture(scope="session")
def cosim_report() -> str:
    """A report of cosimulation."""
    return COSIM


@pytest.fixture(scope="session")
def shared_reports() -> Path:
    """Reports of real runs, where the project's data folder lies beside the checkout."""
    folder = Path(__file__).parents[4] / "shared" / "data" / "vivado_reports"
    if not folder.is_dir():
        pytest.skip("the reports of real runs are not beside this checkout")
    return folder
