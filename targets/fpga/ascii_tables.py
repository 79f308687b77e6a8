"""Tables drawn with characters, as synthesis tools print them, read by their headers.

Columns move between versions of a tool, so nothing here counts them: a header may stand in several
lines, with cells that span columns, and a column is found by its whole title.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

_SECTION = re.compile(r"^== (.+?)\s*$")
_NUMBERED = re.compile(r"^\d+(?:\.\d+)*\.? +(\S.*?)\s*$")
_BULLET = re.compile(r"^( *)[+*] ([^|+]+?): *$")
_BORDER = re.compile(r"^\s*\+(?:-+\+)+\s*$")
_RULE = re.compile(r"^-+\s*$")


@dataclass(frozen=True)
class AsciiTable:
    """One table under the titles that lead to it."""

    titles: tuple[str, ...]
    columns: tuple[str, ...]
    """Titles, those that span a column first: ``Latency (cycles) min``."""
    rows: tuple[tuple[str, ...], ...]

    def named(self, column: str) -> dict[str, str]:
        """A column's cells by the first cell of their row."""
        place = self.columns.index(column)
        return {row[0]: row[place] for row in self.rows}

    def dicts(self) -> list[dict[str, str]]:
        """Every row by column title."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def tables(text: str) -> Iterator[AsciiTable]:
    """Every table of a report."""
    lines = text.splitlines()
    titles: list[tuple[int, str]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        if section := _SECTION.match(line):
            titles = [(-1, section[1])]
        elif (heading := _NUMBERED.match(line)) and _ruled(lines, at):
            titles = [(-1, heading[1])]
        elif bullet := _BULLET.match(line):
            indent = len(bullet[1])
            titles = [t for t in titles if t[0] < indent] + [(indent, bullet[2])]
        elif _BORDER.match(line):
            end = at
            while end < len(lines) and lines[end].strip()[:1] in ("+", "|"):
                end += 1
            yield _table(tuple(t for _, t in titles), lines[at:end])
            at = end
            continue
        at += 1


def _ruled(lines: list[str], at: int) -> bool:
    return at + 1 < len(lines) and _RULE.match(lines[at + 1]) is not None


def _table(titles: tuple[str, ...], lines: list[str]) -> AsciiTable:
    """The header ends at the second border that goes through."""
    borders = [i for i, line in enumerate(lines) if _BORDER.match(line)]
    split = borders[1] if len(borders) > 1 else len(lines)
    header, body = lines[borders[0] + 1 : split], lines[split:]
    edges = _edges(max(header, key=lambda line: line.count("|"), default=""))
    columns = [""] * max(len(edges) - 1, 0)
    for line in header:
        for i, text in enumerate(_cells(line.replace("+", "|"), edges)):
            columns[i] = f"{columns[i]} {text}".strip()
    rows = [line.split("|")[1:-1] for line in body if not _BORDER.match(line)]
    wrong = [row for row in rows if len(row) != len(columns)]
    if wrong:
        raise ValueError(f"a row of {len(wrong[0])} cells under {len(columns)} columns")
    cells = tuple(tuple(cell.strip() for cell in row) for row in rows)
    return AsciiTable(titles, tuple(columns), cells)


def _edges(line: str) -> list[int]:
    return [i for i, c in enumerate(line) if c == "|"]


def _cells(line: str, edges: list[int]) -> list[str]:
    """For every column the text of the cell above it, which may span several."""
    own = _edges(line)
    found = []
    for left, right in pairwise(edges):
        before = max((e for e in own if e <= left), default=0)
        after = min((e for e in own if e >= right), default=len(line))
        found.append(line[before + 1 : after].strip(" -"))
    return found
