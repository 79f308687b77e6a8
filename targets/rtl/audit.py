"""What the design computes with, read back from its Verilog."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from edgemix.errors import ToolError
from edgemix.targets.base import OpPrecision

_WIRE = re.compile(r"^\s*wire (?:signed )?\[(\d+):0\] [vh]\d+(?: = |; )(.*);$")
_KINDS = (
    ("table", re.compile(r"^table_\w+ t")),
    ("multiply", re.compile(r" \* ")),
    ("add", re.compile(r" [+-] ")),
    ("select", re.compile(r" \? ")),
    ("logic", re.compile(r"[&|^~]")),
)


def audit(project: Path) -> tuple[OpPrecision, ...]:
    """Operations by kind, with the widest result of each; all of them are bit vectors.

    Raises:
        ToolError: the project holds no design of this kind.
    """
    source = project / "rtl" / "model.v"
    if not source.is_file():
        raise ToolError(f"{project} is no RTL project")
    counts: Counter[str] = Counter()
    widest: dict[str, int] = {}
    for line in source.read_text().splitlines():
        match = _WIRE.match(line)
        if match is None:
            if re.search(r"\breal\b", line):
                raise ToolError(f"{source.name} computes with real numbers: {line.strip()}")
            continue
        kind = next((name for name, pattern in _KINDS if pattern.search(match[2])), "wires")
        counts[kind] += 1
        widest[kind] = max(widest.get(kind, 0), int(match[1]) + 1)
    return tuple(
        OpPrecision(kind, f"{counts[kind]:,}, up to {widest[kind]} bits", "fixed", "fixed")
        for kind in sorted(counts)
    )
