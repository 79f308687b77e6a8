"""Average pools that compute in float between integers keep their values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemix import targets
from edgemix.program import Program
from edgemix.targets.real import pools


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d((2, 4), padding=(1, 2), count_include_pad=False),
        nn.AvgPool2d(3, 2, 1, ceil_mode=True),
        nn.AvgPool2d(7),
    ],
)
def test_half_of_twice_changes_no_bit(
    layer: nn.Module, quantize_by: Callable[..., Program]
) -> None:
    x = torch.randn(4, 3, 15, 14)
    made = quantize_by(nn.Sequential(layer), x, "int8")
    module = made.module()
    assert pools(module) == 1
    assert torch.equal(made.with_module(module).run(x)[0], made.run(x)[0])


def test_onnx_runtime_makes_no_integer_pool_of_it(
    tmp_path: Path, program_file: Callable[[Program], Path], quantize_by: Callable[..., Program]
) -> None:
    x = torch.randn(8, 4, 12, 12)
    made = quantize_by(nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False)), x, "int8")
    target = targets.load("onnx")
    folder = tmp_path / "onnx"
    folder.mkdir()
    artifact = target.lower(made, program_file(made), folder)
    averages = [op for op in target.audit(artifact, folder) if "Pool" in op.op]
    assert [op.achieved for op in averages] == ["float between integers"]
    assert averages[0].kept
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None and made.output_encodings[0] is not None
    off = np.abs(found[0] - made.run(x)[0].numpy()) / made.output_encodings[0].scale[0]
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.002
