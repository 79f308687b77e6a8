"""Rows as a table: a line for each system, a column for each comparison."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Rows = Sequence[dict[str, Any]]
Column = tuple[str, str, str]
"""Recipe, target, and what it is compared with."""


def _column(row: dict[str, Any]) -> Column:
    return row["recipe"], row["target"], row["against"]


def _columns(rows: Rows) -> list[Column]:
    return list(dict.fromkeys(_column(r) for r in rows if not r["refused"]))


def columns(rows: Rows) -> list[str]:
    """The table's head."""
    return ["system", *(_titled(*column) for column in _columns(rows))]


def _titled(recipe: str, target: str, against: str) -> str:
    other = "" if against == "program" else f" beside {against}"
    return f"{recipe}: {target}{other}"


def lines(rows: Rows) -> Iterator[list[str]]:
    """A line for each system: differences, or the share of integers within 1 LSB."""
    for system in dict.fromkeys(r["system"] for r in rows):
        of = {_column(r): r for r in rows if r["system"] == system}
        yield [system, *(_cell(of.get(column)) for column in _columns(rows))]


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    if row["refused"]:
        return "refused"
    shown = f"{row['relative']:.0e}" if row["within"] is None else f"{row['within']:.2%}"
    return shown if row["passed"] else f"{shown} ✗"


def summary(rows: Rows) -> Iterator[str]:
    """How many of each column keep what is asked of them, and how many could not by themselves."""
    for column in _columns(rows):
        of = [r for r in rows if _column(r) == column]
        ran = [r for r in of if not r["refused"]]
        kept, asked = sum(r["passed"] for r in ran), {r["contract"] for r in ran}
        bar = f"of {asked.pop()}" if len(asked) == 1 else "of their own bounds"
        line = f"{_titled(*column)}: {kept} of {len(of)} keep the bar {bar}, {len(of) - len(ran)} refused"
        missed = {r["system"] for r in ran if not r["passed"]}
        stray = missed & _strays(rows, column[0])
        yield f"{line}; of those that miss it, {len(stray)} do so by themselves" if stray else line


def _strays(rows: Rows, recipe: str) -> set[str]:
    """Systems whose program alone misses the bar when what it is given is rounded."""
    return {
        r["system"] for r in rows
        if r["recipe"] == recipe and r["target"] == "program" and not r["passed"]
    }  # fmt: skip


def refusals(rows: Rows) -> Iterator[str]:
    """What was refused, and why."""
    for row in rows:
        if row["refused"]:
            yield f"{row['system']}, {row['recipe']} on {row['target']}: {row['refused']}"
