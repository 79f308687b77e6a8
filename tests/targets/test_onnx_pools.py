"""Average pools in two directions are the pools that they stand for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import targets
from edgemix.graph import aten
from edgemix.order import Order, Silence
from edgemix.program import Origin, Program
from edgemix.quantizing import quantized
from edgemix.targets.onnx.pools import separable_pools


def _made(layer: nn.Module, x: Tensor, folder: Path) -> Program:
    program = Program.trace(nn.Sequential(layer), (x[:1],), Origin("a test"))
    np.save(folder / "x.npy", x.numpy())
    data = str(folder / "x.npy")
    order = Order(source="x", targets=("onnx",), out=folder, calibrate=data, evaluate=data)
    return quantized(order, program, [targets.load("onnx")], Silence()).quantized


@pytest.mark.parametrize(
    "layer",
    [
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.AvgPool2d(3, 2, 1),
        nn.AvgPool2d((2, 4), padding=(1, 2), count_include_pad=False),
        nn.AvgPool2d(7),
    ],
)
def test_two_pools_average_as_one(layer: nn.Module, tmp_path: Path) -> None:
    x = torch.randn(4, 3, 15, 14)
    made = _made(layer, x, tmp_path)
    module = made.module()
    assert separable_pools(module) == 1
    module.recompile()
    assert sum(n.target is aten.avg_pool2d.default for n in module.graph.nodes) == 2
    assert made.output_encodings[0] is not None
    found = made.with_module(module).run(x)[0]
    # A sum that lies on a tie may fall to the other side of it.
    step = made.output_encodings[0].scale[0]
    off = (found.float() - made.run(x)[0]).abs()
    assert off.max() <= 1.01 * step and (off > 0.5 * step).float().mean() < 0.02


@pytest.mark.parametrize(
    "layer", [nn.AvgPool2d(3, 2, 1, ceil_mode=True), nn.AvgPool2d((1, 3)), nn.AvgPool2d(3, divisor_override=5)]
)  # fmt: skip
def test_others_stay(layer: nn.Module, tmp_path: Path) -> None:
    assert separable_pools(_made(layer, torch.randn(4, 3, 15, 14), tmp_path).module()) == 0


def test_onnx_runtime_makes_no_integer_pool_of_it(
    tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    x = torch.randn(8, 4, 12, 12)
    made = _made(nn.AvgPool2d(3, 1, 1, count_include_pad=False), x, tmp_path)
    target = targets.load("onnx")
    folder = tmp_path / "onnx"
    folder.mkdir()
    artifact = target.lower(made, program_file(made), folder)
    pools = [op for op in target.audit(artifact, folder) if "Pool" in op.op]
    assert {op.achieved for op in pools} <= {"float between integers", "float"} and all(
        op.kept for op in pools
    )
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None and made.output_encodings[0] is not None
    off = np.abs(found[0] - made.run(x)[0].numpy()) / made.output_encodings[0].scale[0]
    assert off.max() < 1.01 and (off > 0.5).mean() < 0.02
