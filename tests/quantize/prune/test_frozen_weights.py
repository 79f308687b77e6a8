"""What is observed does not depend on whether weights want gradients: those from a file do not."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.quantize.prune.axes import units_of
from edgemix.quantize.prune.observe import observe


def test_a_program_from_a_file_is_observed_as_the_traced_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(16, 3)
    )
    traced = rewrites.standard(Program.trace(module, (torch.zeros(1, 1, 6, 6),), Origin("a test")))
    traced.save(tmp_path / "program.edgemix")
    read = Program.load(tmp_path / "program.edgemix")
    samples = torch.randn(20, 1, 6, 6)
    one, other = (observe(p, units_of(p), samples) for p in (traced, read))
    assert torch.equal(one.slopes, other.slopes)
    assert [r.node for r in one.readers] == [r.node for r in other.readers]
    for a, b in zip(one.readers, other.readers, strict=True):
        assert torch.equal(a.covariance, b.covariance)
        assert torch.equal(a.sensitivity, b.sensitivity)
        assert (a.sensitivity > 0).all()
