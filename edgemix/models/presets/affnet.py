"""AFFNet of adaptive frequency filters."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.models.branches import NormedConv
from edgemix.models.inverted_residual import InvertedResidual
from edgemix.models.lively import lively
from edgemix.models.mixers.fourier import AdaptiveFilter
from edgemix.models.norm import ChannelNorm
from edgemix.models.presets.base import Factory, Preset

Plan = tuple[int, int, int, int]
"""Channels of the second stage, which is convolutional, and of the three stages of filters."""


class Filtered(nn.Module):
    """y = x + z + AFF(z), z = norm(MBConv(norm(x))).

    Huang et al., "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023,
    equations 7 and 8, in the order of the published code: channels first, and one residual path
    beside both mixers, whose own lie inside.

    Shape: [n, dim, size, size] → the same.
    """

    def __init__(self, dim: int, size: int, groups: int) -> None:
        super().__init__()
        self.norm1 = ChannelNorm(dim, eps=1e-5)
        self.mlp = InvertedResidual(dim, dim, ratio=2)
        self.norm2 = ChannelNorm(dim, eps=1e-5)
        self.filter = AdaptiveFilter(dim, size, size, groups)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        z = self.norm2(self.mlp(self.norm1(x)))
        return cast(Tensor, x + z + self.filter(z))


class Fused(nn.Module):
    """y = σ(BN(W [x, BN(V blocks(x))])): a stage's blocks beside what they were given.

    Shape: [n, dim, size, size] → the same.
    """

    def __init__(self, dim: int, size: int, depth: int, groups: int) -> None:
        super().__init__()
        blocks = (Filtered(dim, size, groups) for _ in range(depth))
        self.blocks = nn.Sequential(*blocks, ChannelNorm(dim, eps=1e-5), NormedConv(dim, dim))
        self.fuse = nn.Sequential(NormedConv(2 * dim, dim), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.fuse(torch.cat([x, self.blocks(x)], dim=1)))


def _affnet(
    dims: Plan, ratio: int, size: int = 256, depths: tuple[int, ...] = (2, 4, 3),
    start: tuple[int, int] = (16, 32), groups: int = 8, last: int = 960, classes: int = 1000,
) -> nn.Module:  # fmt: skip
    """The plan of the published code, whose activation is ReLU where no configuration says."""
    stem, width = start
    second, *filtered = dims
    layers: list[nn.Module] = [
        NormedConv(3, stem, 3, 2), nn.ReLU(), InvertedResidual(stem, width, 1, ratio),
        InvertedResidual(width, second, 2, ratio),
        *(InvertedResidual(second, second, 1, ratio) for _ in "12"),
    ]  # fmt: skip
    width = second
    for i, (dim, depth) in enumerate(zip(filtered, depths, strict=True)):
        layers.append(InvertedResidual(width, dim, 2, ratio))
        layers.append(Fused(dim, size >> i + 3, depth, groups))
        width = dim
    wide = min(4 * width, last)
    layers += [NormedConv(width, wide), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(wide, classes))


def _of(dims: Plan, ratio: int, parameters: float, macs: float, *, uncounted: float) -> Preset:
    source = "Huang et al., Adaptive Frequency Filters, ICCV 2023, and its code's list of models"
    build = partial(_affnet, dims, ratio)
    return Preset(build, (3, 256, 256), parameters, macs, source, uncounted=uncounted)


# The published code's own count leaves out layer norms and the biases of filters.


PRESETS = {
    "affnet_et": _of((48, 64, 104, 144), 2, 1.4, 0.4, uncounted=0.008432),
    "affnet_t": _of((48, 96, 160, 192), 4, 2.6, 0.8, uncounted=0.012160),
    "affnet_st": _of((64, 128, 256, 320), 4, 5.5, 1.5, uncounted=0.019328),
}


def tiny() -> Factory:
    """A block in every stage of filters, on maps of 4×4, 2×2 and one position."""
    build = partial(
        _affnet, (8, 8, 16, 16), 2, 32, depths=(1, 1, 1), start=(4, 8), groups=4, classes=10
    )
    return lively(build, (3, 32, 32))
