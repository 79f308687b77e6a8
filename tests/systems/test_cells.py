"""Tiny variants of the published systems on all targets: a few here, all of them in `make slow`."""

from __future__ import annotations

import pytest

from edgemix.systems.catalog import Slot, slots, system, systems
from edgemix.systems.cell import measured
from edgemix.systems.run import RESULTS, read

_QUICK = {
    Slot("tiny/cas_vit", "onnx", "integer"),
    Slot("tiny/patch_tsmixer", "tflite", "integer"),
    Slot("tiny/linear_transformer", "coreml", "step"),
}
_TINY = [slot for row in systems() if row.group == "tiny" for slot in slots(row)]


@pytest.mark.parametrize(
    "slot",
    [s if s in _QUICK else pytest.param(s, marks=pytest.mark.slow) for s in _TINY],
    ids=lambda s: f"{s.system.removeprefix('tiny/')}-{s.target}-{s.kind}",
)
def test_a_cell_is_what_the_results_say(slot: Slot) -> None:
    (known,) = (cell for cell in read(RESULTS) if cell.slot == slot)
    (found,) = measured(system(slot.system), [slot])
    assert (found.passed, bool(found.refused)) == (known.passed, bool(known.refused)), found


def test_every_tiny_cell_has_been_measured() -> None:
    assert {cell.slot for cell in read(RESULTS)} >= set(_TINY)
