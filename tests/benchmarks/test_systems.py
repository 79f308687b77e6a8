"""The table of systems: what its models are, and how its lines read."""

from __future__ import annotations

from typing import Any

import timm
import torch

from edgemix import sources
from tests.benchmarks.systems import models, table


def test_every_model_is_one_of_timms() -> None:
    assert len(set(models.TIMM)) == len(models.TIMM) >= 60
    assert [name for name in models.TIMM if not timm.is_model(name)] == []


def test_a_model_speaks_in_all_of_its_parts() -> None:
    program = sources.load("tests.benchmarks.systems.models:fasternet_t0")
    generator = torch.Generator().manual_seed(1)
    y = program.run(torch.randn(2, *program.inputs[0].shape[1:], generator=generator))[0]
    # As timm makes it, outputs of both images agree to 1e-3 of their size, or to the bit.
    assert 0.01 < float(y.std()) < 100
    assert float((y[0] - y[1]).abs().max()) > 0.1 * float(y.abs().max())


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
