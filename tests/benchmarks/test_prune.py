"""The table of pruning: a budget is met from below, and every line is told once."""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

import pytest

from tests.benchmarks.prune import tables
from tests.benchmarks.prune.peers import bisect


def row(method: str, setting: str, share: float, **more: Any) -> dict[str, Any]:
    given = {
        "model": "a", "method": method, "setting": setting, "counted": "macs", "share": share,
        "epochs": 0, "what": "", "labels": False, "float_points": 99.0, "points": 90.0,
        "macs": share, "weights": share, "seconds": 1.0, "refused": "",
    }  # fmt: skip
    return given | more


ROWS = [
    row("edgemix", "refit", 0.5, points=98.0),
    row("torch-pruning", "taylor", 0.5, labels=True, macs=0.48),
    row("nncf", "widths", 0.5, refused="no widths"),
    row("nncf", "widths", 0.3, refused="no widths"),
    row("nncf", "widths", 0.5, model="b", refused="no widths"),
]


@pytest.mark.parametrize("share", [0.7, 0.5, 0.2])
def test_the_least_ratio_that_keeps_a_budget(share: float) -> None:
    def left(ratio: float) -> float:
        return (round(10 * (1 - ratio)) / 10) ** 2

    ratio = bisect(left, share)
    assert left(ratio) <= share
    assert left(ratio - 0.1) > share


def test_a_budget_that_no_ratio_keeps_is_known_by_the_highest() -> None:
    assert bisect(lambda _: 1.0, 0.5) == 1.0


def test_the_best_is_bold_and_a_refusal_is_told_once() -> None:
    text = "\n".join(tables.markdown({"rows": ROWS}))
    assert "|  | edgemix, refit | **98.00** (50%) |" in text
    assert "|  | torch-pruning, taylor (labels) | 90.00 (50%) |" in text
    assert text.count("no widths") == 1
    assert "| nncf | widths | a, b | no widths |" in text


def test_the_picture_has_a_line_for_each_setting() -> None:
    found = ElementTree.fromstring(tables.svg(ROWS))
    lines = found.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert len(lines) == 2
