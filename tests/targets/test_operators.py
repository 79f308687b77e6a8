"""Single operators on hard inputs: ONNX and TFLite against the program, value by value.

One module holds them all, so that a converter runs once. What is listed as rounding otherwise
is what the runtime's own kernels do; everything else has to be identical.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix import rewrites, targets
from edgemix.encoding import Encoding
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import Calibration, DataPrint
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.quantize.watch import Observer

NAMES = (
    "conv3x3", "conv1x1", "depthwise", "conv_relu", "avg_pool", "sub", "add", "add_small", "scaled",
    "matmul", "softmax", "mean", "linear", "pooled_conv",
)  # fmt: skip

ROUNDS_OTHERWISE: dict[tuple[str, str], dict[str, tuple[float, int]]] = {
    # QLinearSoftmax has a table of its own.
    ("onnx", "int8"): {"softmax": (0.001, 1)},
    # BATCH_MATMUL rounds twice; a logit that differs moves its whole row of probabilities.
    ("tflite", "int8"): {"matmul": (0.01, 1), "softmax": (0.02, 16)},
    # Unaligned additions with scales that are powers of two tie often, and LiteRT rounds ties up.
    ("tflite", "fixed8"): {
        "matmul": (0.02, 1), "softmax": (0.2, 24), "sub": (0.3, 1), "add": (0.3, 1),
        "add_small": (0.3, 1),
    },
}  # fmt: skip


class Operators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv3x3 = nn.Conv2d(8, 8, 3, padding=1)
        self.conv1x1 = nn.Conv2d(8, 8, 1)
        self.depthwise = nn.Conv2d(8, 8, 1, groups=8)
        self.linear = nn.Linear(128, 10)

    def forward(self, x: Tensor, y: Tensor, z: Tensor) -> tuple[Tensor, ...]:
        rows = x.reshape(1, 8, 16)
        scores = rows.transpose(1, 2) @ rows
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)  # read twice
        return (
            self.conv3x3(x), self.conv1x1(x), self.depthwise(x), functional.relu(self.conv1x1(x)),
            pooled, x - y, x + y, x + z, x * 0.3535, scores, scores.softmax(-1), x.mean((2, 3)),
            self.linear(x.flatten(1)), self.conv1x1(pooled),
        )  # fmt: skip


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Random values, values far outside the calibrated range, zeros and negative zeros."""
    generator = torch.Generator().manual_seed(1)
    shape = (60, 8, 4, 4)
    x, y, z = (torch.randn(shape, generator=generator) * s for s in (1.0, 1.7, 0.2))
    x[40:50] *= 100
    x[50:54], y[50:52], z[50:54] = 0.0, 0.0, -0.0
    x[54:57], y[54:57] = 1e9, -1e9
    return x, y, z


@pytest.mark.parametrize("recipe", ["int8", "fixed8"])
@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_every_operator(
    name: str, recipe: str, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    x, y, z = inputs()
    chosen = Recipe.load(recipe).model_copy(update={"align_additions": 1.0})
    program = Program.trace(Operators(), (x[:1], y[:1], z[:1]), Origin("test"))
    program = rewrites.standard(program, chosen.split)
    observer = Observer(program)
    observer.watch(x[:40], y[:40], z[:40])
    calibration = Calibration(program.digest, DataPrint(40, (8, 4, 4), ""), observer.stats)
    quantized = quantize(program, calibration, chosen)

    target = targets.load(name)
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(quantized, program_file(quantized), folder)
    found = target.run(artifact, folder, tuple(t.numpy() for t in (x, y, z)))
    assert found is not None
    allowed = ROUNDS_OTHERWISE.get((name, recipe), {})
    differences = {}
    for label, expected, got, encoding in zip(
        NAMES, quantized.run(x, y, z), found, quantized.output_encodings, strict=True
    ):
        assert isinstance(encoding, Encoding)
        steps = np.abs(encoding.integers(expected.numpy()) - encoding.integers(got))
        share, worst = float((steps > 0).mean()), int(steps.max())
        most, furthest = allowed.get(label, (0.0, 0))
        if share > most or worst > furthest:
            differences[label] = (share, worst)
    assert differences == {}
