"""Embeddings that are more than one convolution and one norm."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def two_convolutions(
    channels: int, dim: int, activation: Callable[[], nn.Module] = nn.ReLU, *, last: bool = True
) -> nn.Sequential:
    """3×3 convolutions of stride 2, half the channels between them, a batch norm behind each.

    Shape: [n, channels, h, w] → [n, dim, h / 4, w / 4].

    Args:
        channels: of the input.
        dim: of the output.
        activation: behind the first, and behind the second if ``last``.
        last: see there.
    """
    layers: list[nn.Module] = []
    for width, wider in ((channels, dim // 2), (dim // 2, dim)):
        layers += [nn.Conv2d(width, wider, 3, 2, 1), nn.BatchNorm2d(wider), activation()]
    return nn.Sequential(*(layers if last else layers[:-1]))


class Positions(nn.Module):
    """y = x + p, one learned vector for every position.

    Shape: [n, dim, size, size] → the same.
    """

    def __init__(self, dim: int, size: int) -> None:
        super().__init__()
        self.at = nn.Parameter(torch.randn(1, dim, size, size) * 0.02)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.at


class Mixed(nn.Module):
    """y = x + W BN(x): channels exchange what a depthwise embedding kept apart (FFNet).

    Shape: [n, dim, h, w] → the same.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(dim)
        self.mix = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = x + self.mix(self.norm(x))
        return mixed
