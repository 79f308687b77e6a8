"""The table of systems: what its models are, and how its lines read."""

from __future__ import annotations

from typing import Any

from tests.benchmarks.systems import table


def row(system: str, target: str, **more: Any) -> dict[str, Any]:
    given = {
        "system": system, "recipe": "float32", "target": target, "against": "program",
        "contract": "≤ 0.0001 of the range", "relative": 2e-7, "within": None, "passed": True,
        "refused": "",
    }  # fmt: skip
    return given | more


ROWS = [
    row("a", "coreml"),
    row("a", "coreai", relative=3e-4, passed=False),
    row("a", "coreai", against="coreml"),
    row("b", "coreml", refused="sort: no sort"),
    row("b", "coreml", recipe="int8-exact", within=0.9969),
]


def test_a_line_for_each_system_and_a_column_for_each_comparison() -> None:
    assert table.columns(ROWS) == [
        "system", "float32: coreml", "float32: coreai", "float32: coreai beside coreml",
        "int8-exact: coreml",
    ]  # fmt: skip
    assert list(table.lines(ROWS)) == [
        ["a", "2e-07", "3e-04 ✗", "2e-07", "–"],
        ["b", "refused", "–", "–", "99.69%"],
    ]
    found = list(table.summary(ROWS))
    assert found[0] == "float32: coreml: 1 of 2 keep the bar of ≤ 0.0001 of the range, 1 refused"
    assert found[1] == "float32: coreai: 0 of 1 keep the bar of ≤ 0.0001 of the range, 0 refused"
    assert list(table.refusals(ROWS)) == ["b, float32 on coreml: sort: no sort"]
