"""Tiny variants of the published systems on all targets: a few here, all of them in `make slow`."""

from __future__ import annotations

import pytest

from edgemix.systems.catalog import PHONES, Slot, slots, system, systems
from edgemix.systems.cell import measured
from edgemix.systems.run import RESULTS, read

_QUICK = {
    Slot("tiny/esc_transformer", "onnx", "integer"),
    Slot("tiny/patch_tsmixer", "tflite", "integer"),
    Slot("tiny/linear_transformer", "coreml", "step"),
}
_KNOWN = {cell.slot: cell for cell in read(RESULTS)}
_TINY = [row for row in systems() if row.group == "tiny"]


@pytest.mark.parametrize(
    "slot",
    [
        s if s in _QUICK else pytest.param(s, marks=pytest.mark.slow)
        for row in _TINY
        for s in slots(row)
        if s in _KNOWN
    ],
    ids=lambda s: f"{s.system.removeprefix('tiny/')}-{s.target}-{s.kind}",
)
def test_a_cell_is_what_the_results_say(slot: Slot) -> None:
    known = _KNOWN[slot]
    (found,) = measured(system(slot.system), [slot])
    assert (found.passed, bool(found.refused)) == (known.passed, bool(known.refused)), found


def test_every_tiny_system_has_been_measured_on_every_phones_target() -> None:
    assert set(_KNOWN) >= _QUICK
    for row in _TINY:
        assert {s.target for s in slots(row) if s in _KNOWN} >= set(PHONES), row
