"""What an operator has to do, against counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix.diagnosis import multiply_accumulates
from edgemix.latency.work import UNITS, Work, multiplications, total, works
from edgemix.program import Origin, Program


def _program(module: nn.Module, *shape: int) -> Program:
    return Program.trace(module, (torch.randn(shape),), Origin("a test"))


def _one(module: nn.Module, *shape: int) -> Work:
    (found,) = works(_program(module, *shape))
    return found


@pytest.mark.parametrize(
    ("layer", "kind", "macs", "weights", "values"),
    [
        (nn.Conv2d(16, 8, 3, padding=1), "winograd", 6 * 6 * 8 * 16 * 9, 16 * 8 * 9, 36 * 24),
        (nn.Conv2d(16, 8, 3, 2, 1), "convolution", 3 * 3 * 8 * 16 * 9, 16 * 8 * 9, 36 * 16 + 9 * 8),
        (nn.Conv2d(16, 8, 5, padding=2), "convolution", 36 * 8 * 16 * 25, 16 * 8 * 25, 36 * 24),
        (nn.Conv2d(16, 8, 1), "pointwise", 36 * 8 * 16, 128, 36 * 24),
        (nn.Conv2d(16, 16, 3, padding=1, groups=16), "depthwise", 36 * 16 * 9, 144, 36 * 32),
        (nn.Conv2d(16, 8, 3, padding=1, groups=4), "grouped", 36 * 8 * 4 * 9, 8 * 4 * 9, 36 * 24),
        (nn.ConvTranspose2d(16, 8, 2, 2), "convolution", 36 * 16 * 8 * 4, 512, 36 * 16 + 144 * 8),
    ],
)
def test_counts_of_convolutions(
    layer: nn.Module, kind: str, macs: int, weights: int, values: int
) -> None:
    found = _one(layer, 1, 16, 6, 6)
    assert (found.kind, found.multiplications, found.weights, found.values) == (
        kind, macs, weights, values,
    )  # fmt: skip


def test_few_channels_are_no_case_for_winograd() -> None:
    assert _one(nn.Conv2d(3, 8, 3, padding=1), 1, 3, 6, 6).kind == "convolution"


class _Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.scaled_dot_product_attention(x, x, x)


def test_attention_is_two_products_and_a_softmax() -> None:
    first, softmax, second = works(_program(_Attention(), 2, 3, 5, 4))
    assert first.multiplications == second.multiplications == 2 * 3 * 5 * 5 * 4
    assert softmax.kind == "heavy" and softmax.values == 2 * 2 * 3 * 5 * 5


class _Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.conv(x)) + 1
        y: Tensor = self.head(x.mean((2, 3)).reshape(-1, 4))
        return y.softmax(-1)


def test_a_model_is_the_sum_of_its_operators() -> None:
    program = _program(_Mixed(), 1, 3, 8, 8)
    found = works(program)
    assert [w.kind for w in found] == [
        "convolution", "nonlinear", "light", "heavy", "pointwise", "heavy",
    ]  # fmt: skip
    vector = total(found)
    assert vector[UNITS.index("inference")] == 1
    np.testing.assert_allclose(vector[:-1], sum(w.vector for w in found)[:-1])
    assert multiplications(vector) * 1e6 == pytest.approx(multiply_accumulates(program))
