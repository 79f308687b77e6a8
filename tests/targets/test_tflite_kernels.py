"""Convolutions that XNNPACK is slow at, or refuses, keep their numbers when written otherwise."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import targets
from edgemix.graph import aten
from edgemix.program import Origin, Program
from edgemix.targets.tflite.kernels import between_integers, strips


def _program(module: nn.Module, *shape: int) -> Program:
    return Program.trace(module, (torch.randn(shape),), Origin("a test"))


def _first(found: Any) -> Tensor:
    first: Tensor = found[0] if isinstance(found, (tuple, list)) else found
    return first


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "bias"),
    [
        (7, 1, 3, True), (7, 2, 3, False), (9, 1, 4, True), (11, 3, 0, True),
        ((6, 5), 1, (2, 3), True), ((2, 25), 1, (0, 12), False),
    ],
)  # fmt: skip
def test_strips_of_rows_are_the_convolution(
    kernel: int | tuple[int, int], stride: int, padding: int | tuple[int, int], bias: bool
) -> None:
    layer = nn.Conv2d(6, 6, kernel, stride, padding, groups=6, bias=bias)
    program = _program(layer, 2, 6, 27, 30)
    module = program.module()
    strips(module)
    module.recompile()
    convolutions = [n for n in module.graph.nodes if n.target is aten.conv2d.default]
    assert len(convolutions) > 1
    x = torch.randn(2, 6, 27, 30)
    torch.testing.assert_close(_first(module(x)), layer(x), rtol=1e-5, atol=1e-6)


def test_filters_that_share_a_channel_get_one_each() -> None:
    layer = nn.Conv2d(4, 12, 7, 2, 3, groups=4)
    module = _program(layer, 2, 4, 15, 15).module()
    strips(module)
    module.recompile()
    whole = [n for n in module.graph.nodes if n.target is aten.conv2d.default]
    assert len(whole) == 3 and all(n.args[6] == 12 for n in whole)
    x = torch.randn(2, 4, 15, 15)
    torch.testing.assert_close(_first(module(x)), layer(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, 5, padding=2, groups=6),
        nn.Conv2d(6, 12, 7, padding=3, groups=3),
        nn.Conv2d(6, 6, 7, padding=6, dilation=2, groups=6),
        nn.Conv2d(6, 6, (1, 27), padding=(0, 13), groups=6),
        nn.Conv2d(6, 6, 7, padding="same", groups=6),
    ],
)
def test_others_stay_whole(layer: nn.Module) -> None:
    module = _program(layer, 1, 6, 30, 30).module()
    strips(module)
    assert sum(n.target is aten.conv2d.default for n in module.graph.nodes) <= 1


class _Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(8, 8, 7, padding=3, groups=8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.wide(x).relu().mean((2, 3)))
        return y


def test_the_artifact_gives_the_programs_integers(
    tmp_path: Path, program_file: Callable[[Program], Path], quantize_by: Callable[..., Program]
) -> None:
    torch.manual_seed(0)
    x = torch.randn(16, 8, 12, 12)
    made = quantize_by(_Wide(), x, "int8")
    target = targets.load("tflite")
    assert between_integers(made.module()) == {"linear operators in float": 1}
    folder = tmp_path / "tflite"
    folder.mkdir()
    artifact = target.lower(made, program_file(made), folder)
    assert artifact.facts["linear operators in float"] == 1
    found = target.run(artifact, folder, (x.numpy(),))
    expected = made.run(x)[0].numpy()
    assert found is not None
    scale = made.output_encodings[0].scale[0]  # type: ignore[union-attr]
    assert abs(found[0] - expected).max() <= 1.01 * scale
    assert all(op.kept for op in target.audit(artifact, folder))


def test_a_sum_whose_steps_are_steps_by_the_hundred_of_its_result_is_float(
    quantize_by: Callable[..., Program],
) -> None:
    difference = nn.Linear(2, 1, bias=False)
    difference.weight.data = torch.tensor([[1.0, -1.0]])
    x = 100 * torch.randn(64, 1).repeat(1, 2) + 1e-3 * torch.randn(64, 2)
    assert between_integers(quantize_by(difference, x, "int8").module()) == {
        "linear operators in float": 1
    }
    plain = quantize_by(nn.Linear(2, 1), torch.randn(64, 2), "int8")
    assert between_integers(plain.module()) == {}


class _Attention(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return (x @ x.transpose(-1, -2)).softmax(-1) @ x


class _Rows(nn.Module):
    """Averages along one axis, of values with another range than theirs."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.avg_pool1d(x.flatten(2), 2, 2).unflatten(2, (3, 6))


class _Quotient(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / (x[:, :1].relu() + x[:, 1:2].relu() + 1)


@pytest.mark.parametrize(
    ("layer", "runs"),
    [
        (_Quotient(), "DIV"),
        (_Rows(), "AVERAGE_POOL_2D"),
        (nn.Hardsigmoid(), "MUL"),
        (nn.Hardswish(), "MUL"),
        (_Attention(), "BATCH_MATMUL"),
        (nn.AvgPool2d(3, 1, 1, count_include_pad=False), "AVERAGE_POOL_2D"),
        (nn.AvgPool2d(3, 2, 1), "AVERAGE_POOL_2D"),
        (nn.AvgPool2d(6), "AVERAGE_POOL_2D"),
    ],
)
def test_what_has_no_good_integer_kernel_is_float_between_integers(
    layer: nn.Module,
    runs: str,
    tmp_path: Path,
    program_file: Callable[[Program], Path],
    quantize_by: Callable[..., Program],
) -> None:
    torch.manual_seed(0)
    x = torch.randn(8, 3, 8, 8)
    layers = nn.Sequential(nn.Conv2d(3, 8, 3), layer, nn.Conv2d(8, 2, 1))
    made = quantize_by(layers, x, "int8")
    target = targets.load("tflite")
    folder = tmp_path / "tflite"
    folder.mkdir()
    artifact = target.lower(made, program_file(made), folder)
    precision = target.audit(artifact, folder)
    assert {op.achieved for op in precision if op.op == runs} == {"float between integers"}
    assert all(op.kept for op in precision)
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None and made.output_encodings[0] is not None
    off = np.abs(found[0] - made.run(x)[0].numpy()) / made.output_encodings[0].scale[0]
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.01
