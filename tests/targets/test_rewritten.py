"""What the rewrites make of einsum, activations in full, scans and sampling, in integers too."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import scan

from edgemix import graph as g
from edgemix import targets
from edgemix.models.sampling import sample_discrete
from edgemix.program import Program
from tests.targets.together import SAMPLES, Together, missed


class Attention(nn.Module):
    """Of heads, by sums over named axes, with a matrix for each of them."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key = (nn.Parameter(torch.randn(2, 4, 3) / 2) for _ in range(2))
        self.out = nn.Parameter(torch.randn(5, 2, 4) / 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2)
        query = torch.einsum("bcn,hcd->bhnd", tokens, self.query)
        key = torch.einsum("bcn,hcd->bhnd", tokens, self.key)
        weights = (torch.einsum("bhid,bhjd->bhij", query, key) * 3**-0.5).softmax(-1)
        mixed = torch.einsum("bhij,bcj->bhci", weights, tokens)
        return torch.einsum("bhci,ohc->boi", mixed, self.out)


class Activations(nn.Module):
    """Mish and the quick GELU, written out."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv2d(4, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        return x * torch.tanh(torch.log1p(torch.exp(x))) + x * torch.sigmoid(1.702 * x)


class Deformable(nn.Module):
    """Reads at places that it predicts, between them and nearest to them."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        grid = self.places(x).permute(0, 2, 3, 1).tanh() * 1.1
        between = nn.functional.grid_sample(x, grid, align_corners=False)
        return torch.cat([between, sample_discrete(x, grid)], 1)


class Scan(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.given, self.held = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        def combine(h: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
            h = torch.tanh(self.given(now) + self.held(h))
            return h, h * 2

        _, y = scan(combine, torch.zeros(1, 4), x[:, :, 0].movedim(1, -1), dim=1)
        return y.clone()


KINDS = {"attention": Attention, "activations": Activations, "places": Deformable, "scan": Scan}
LEFT = {
    "conv2d", "conv1d", "linear", "matmul", "softmax", "mish", "silu", "tanh", "add", "mul", "cat",
    "grid_sampler", "permute", "transpose", "reshape", "flatten", "select", "unsqueeze",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(quantize_by: Callable[..., Program]) -> Callable[[str], Program]:
    """The model by a recipe's name."""
    return cache(lambda recipe: quantize_by(Together(KINDS), SAMPLES, recipe))


def test_nothing_else_is_left(made: Callable[[str], Program]) -> None:
    assert {g.op_name(n) for n in g.float_ops(made("float32").module())} <= LEFT


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("onnx", "int8"),
        *(
            pytest.param(*pair, marks=pytest.mark.slow)
            for pair in (
                ("onnx", "float32"), ("tflite", "float32"), ("tflite", "int8"),
                ("coreml", "float32"), ("coreml", "int8-exact"),
            )
        ),
    ],
)  # fmt: skip
def test_every_target_computes_it(
    name: str, recipe: str, made: Callable[[str], Program], tmp_path: Path
) -> None:  # fmt: skip
    assert missed(KINDS, made(recipe), name, tmp_path) == []


REFUSALS = {
    "tflite": ("reflection", "bilinear", "the converter has no reflected places"),
    "coreml": ("zeros", "bicubic", "Core ML has no cubic sampling at places"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_sampling_that_a_target_lacks_is_said(
    name: str, quantize_by: Callable[..., Program]
) -> None:
    padding, mode, why = REFUSALS[name]

    class Sampled(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            grid = x[:, :2].permute(0, 2, 3, 1).tanh()
            return nn.functional.grid_sample(x, grid, mode, padding, align_corners=False)

    program = quantize_by(Sampled(), torch.randn(8, 3, 4, 4), "float32")
    (finding,) = targets.load(name).supports(program)
    assert (finding.where.node, finding.why) == ("grid_sampler", why)
    for other in {"onnx", "tflite", "coreml"} - {name}:
        assert targets.load(other).supports(program) == ()
