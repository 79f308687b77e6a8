"""Weights that are mostly zero take less room in a package, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemix import proof, rewrites, targets
from edgemix.program import Origin, Program


def _program(zeros: float) -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 96), nn.ReLU(), nn.Linear(96, 64), nn.ReLU(), nn.Linear(64, 4)
    )
    weight = net[2].weight
    assert isinstance(weight, nn.Parameter)
    with torch.no_grad():
        weight[torch.rand(weight.shape) < zeros] = 0.0
    return rewrites.standard(Program.trace(net, (torch.zeros(1, 16),), Origin("a test")))


@pytest.fixture(scope="module")
def dense_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Of weights in a package without zeros."""
    folder = tmp_path_factory.mktemp("dense")
    (program := _program(0.0)).save(folder / "program.edgemix")
    artifact = targets.load("coreml").lower(program, folder / "program.edgemix", folder)
    assert artifact.facts["compressed weights"] == {}
    return _bytes(folder / artifact.main)


def _bytes(package: Path) -> int:
    return sum(file.stat().st_size for file in package.rglob("weight.bin"))


@pytest.mark.parametrize("zeros", [0.45, 0.55, 0.75])
def test_zeros_shrink_the_package(
    zeros: float, dense_bytes: int, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program = _program(zeros)
    target = targets.load("coreml")
    artifact = target.lower(program, program_file(program), tmp_path)
    size = _bytes(tmp_path / artifact.main)
    if zeros < 0.5:
        assert artifact.facts["compressed weights"] == {}
        assert artifact.facts["deployment target"] == "iOS 15, macOS 12"
        assert size == dense_bytes
    else:
        assert artifact.facts["compressed weights"] == {"constexpr_sparse_to_dense": 1}
        assert artifact.facts["deployment target"] == "iOS 16, macOS 13: sparse weights"
        weights = 96 * 64
        gone = next(n for v in program.graph.state_dict.values() if v.numel() == weights
                    for n in [int((v == 0).sum())])  # fmt: skip
        # Two bytes for each zero are saved, a bit for each weight is added; blobs are aligned.
        assert abs(dense_bytes - size - (2 * gone - weights // 8)) <= 256
    x = torch.randn(20, 16)
    found = target.run(artifact, tmp_path, (x.numpy(),))
    assert found is not None
    fidelity = proof.compare(
        program.run(x)[0].numpy(), found[0], program.output_encodings[0], target.promise(program)
    )
    assert fidelity.passed, fidelity
