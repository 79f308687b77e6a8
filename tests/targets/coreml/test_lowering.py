"""Every way to store weights and to compute, chosen by recipe, executed and compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemix import proof, targets
from edgemix.program import Program
from edgemix.targets.coreml import precision

_SAMPLES = 24

STORED = {
    # recipe: (operators that expand weights, oldest system)
    "float32": ({}, "iOS 15, macOS 12"),
    "float16": ({}, "iOS 15, macOS 12"),
    "w8": ({"constexpr_affine_dequantize": 3}, "iOS 17, macOS 14: quantized weights"),
    "int8": ({"constexpr_affine_dequantize": 3}, "iOS 17, macOS 14: quantized activations, quantized weights"),
    "int8-exact": ({"constexpr_affine_dequantize": 3}, "iOS 17, macOS 14: quantized activations, quantized weights"),
    "palette8": ({"constexpr_lut_to_dense": 3}, "iOS 16, macOS 13: palettes"),
    "palette6": ({"constexpr_lut_to_dense": 3}, "iOS 16, macOS 13: palettes"),
    "palette4": ({"constexpr_lut_to_dense": 3}, "iOS 16, macOS 13: palettes"),
    "palette2": ({"constexpr_lut_to_dense": 3}, "iOS 16, macOS 13: palettes"),
    # On iOS 18 the same operator expands weights with a scale for each channel.
    "w4-blocks": ({"constexpr_blockwise_shift_scale": 3}, "iOS 18, macOS 15: weights in blocks"),
}  # fmt: skip


class Net(nn.Module):
    """A convolution and two wide layers, so that palettes and blocks have something to hold."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, stride=2)
        self.one, self.two = nn.Linear(16, 64), nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pooled = torch.relu(self.conv(x)).mean((2, 3))
        return self.two(torch.nn.functional.gelu(self.one(pooled)))


ALIKE = ("palette8", "palette6", "palette2", "w8")
"""Stored as others are, but for their widths."""


@pytest.mark.parametrize(
    "recipe", [pytest.param(r, marks=pytest.mark.slow) if r in ALIKE else r for r in STORED]
)
def test_a_recipe_chooses_how_weights_are_stored(
    recipe: str,
    quantize_by: Callable[..., Program],
    program_file: Callable[[Program], Path],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    x = torch.randn(_SAMPLES, 3, 9, 9)
    program = quantize_by(Net().eval(), x, recipe)
    target = targets.load("coreml")
    assert target.supports(program) == ()
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    stored, system = STORED[recipe]
    assert artifact.facts["compressed weights"] == stored
    assert artifact.facts["deployment target"] == system
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None
    promise = target.promise(program)
    fidelity = proof.compare(
        program.run(x)[0].numpy(), found[0], program.output_encodings[0], promise
    )
    assert fidelity.passed, fidelity
    if recipe in ("float32", "int8-exact"):
        assert fidelity.worst_relative <= 1e-4 or fidelity.within >= 0.99
    if promise.level != "relative":
        return
    assert promise.bound == pytest.approx(
        1e-4 if recipe == "float32" else 3 * 2.0**-11 * np.sqrt(precision.depth(program.module()))
    )


def test_sixteen_bits_are_bounded_by_how_many_are_added_up() -> None:
    assert precision.summing_bound(1) == pytest.approx(2.0**-11, rel=1e-3)
    assert precision.summing_bound(2048) == np.inf
    rng = np.random.default_rng(0)
    x, w = rng.normal(size=(2, 300, 64)).astype(np.float16)
    exact = (x.astype(np.float64) * w.astype(np.float64)).sum(1)
    running = np.zeros(300, np.float16)
    for i in range(64):
        running = (running + (x[:, i] * w[:, i])).astype(np.float16)
    sizes = np.abs(x.astype(np.float64) * w.astype(np.float64)).sum(1)
    # Products round once more than sums do.
    assert (np.abs(running - exact) <= precision.summing_bound(65) * sizes).all()


class Normed(nn.Module):
    """A norm whose product and sum stand behind each other: no convolution takes them in."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, 6)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(x)


def test_a_product_and_a_sum_are_not_scaled(
    quantize_by: Callable[..., Program],
    program_file: Callable[[Program], Path],
    tmp_path: Path,
) -> None:
    """Coremltools makes a batch norm of them, whose epsilon takes 5e-6 off every value."""
    torch.manual_seed(0)
    x = torch.randn(2, 6, 5, 5)
    program = quantize_by(Normed().eval(), x, "float32")
    target = targets.load("coreml")
    artifact = target.lower(program, program_file(program), tmp_path)
    found = target.run(artifact, tmp_path, (x.numpy(),))
    assert found is not None
    expected = program.run(x)[0].numpy()
    assert np.abs(found[0] - expected).max() < 1e-6 * np.abs(expected).max()
