"""Discrete sampling as it was published, and through a target's eyes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.models.sampling import sample_discrete
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe


def published(x: Tensor, grid: Tensor) -> Tensor:
    """One value after the other: the index of u in [0, 1] is the whole part of u w + 1/2."""
    n, c, h, w = x.shape
    out = torch.zeros(n, c, *grid.shape[1:3])
    for sample in range(n):
        for i in range(grid.shape[1]):
            for j in range(grid.shape[2]):
                u, v = ((grid[sample, i, j] + 1) / 2).tolist()
                column = min(max(int(u * w + 0.5), 0), w - 1)
                row = min(max(int(v * h + 0.5), 0), h - 1)
                out[sample, :, i, j] = x[sample, :, row, column]
    return out


def test_it_reads_where_the_published_code_does(generator: torch.Generator) -> None:
    x = torch.randn(2, 3, 5, 7, generator=generator)
    grid = torch.rand(2, 4, 6, 2, generator=generator) * 2.6 - 1.3
    assert torch.equal(sample_discrete(x, grid), published(x, grid))


class Deformable(nn.Module):
    """Reads a map at offsets from its own places, which it predicts."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.offsets = nn.Conv2d(3, 2, 3, padding=1)
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        places = (torch.arange(self.side) + 0.5) / (self.side / 2) - 1
        rows, columns = torch.meshgrid(places, places, indexing="ij")
        grid = torch.stack([columns, rows], -1) + self.offsets(x).permute(0, 2, 3, 1).tanh() * 0.1
        return nn.functional.grid_sample(x, grid, align_corners=False)


def test_places_are_real_numbers_and_what_is_read_is_not(generator: torch.Generator) -> None:
    module = Deformable(8)
    program = rewrites.standard(Program.trace(module, (torch.zeros(1, 3, 8, 8),), Origin("test")))
    calibration = calibrate(program, [torch.randn(8, 3, 8, 8, generator=generator)])
    quantized = quantize(program, calibration, Recipe.load("int8"))
    (sampler,) = [n for n in g.float_ops(quantized.module()) if g.op_name(n) == "grid_sampler"]
    read, grid = sampler.args[:2]
    assert g.is_dequantize(read)
    assert g.op_name(grid) == "add"
    assert g.is_constant(grid.args[0]) and not g.is_dequantize(grid.args[0])
    # What the linear operator gives has a grid of its own, finer than that of places.
    assert set(quantized.encodings) == {"x", "conv2d", "permute", "grid_sampler"}


def test_indices_are_made_of_real_numbers(generator: torch.Generator) -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.where = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            place = (self.where(x).sigmoid() * 3 + 0.5).to(torch.int64)
            return x.gather(1, place) * 2

    program = rewrites.standard(Program.trace(Reads(), (torch.zeros(1, 4),), Origin("test")))
    calibration = calibrate(program, [torch.randn(8, 4, generator=generator)])
    encodings = quantize(program, calibration, Recipe.load("int8")).encodings
    assert set(encodings) == {"x", "linear", "gather", "mul_1"}
