"""MobileNetV2's block, the MBConv of many mobile vision models."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from edgemix.models.branches import NormedConv


class InvertedResidual(nn.Module):
    """y = W₂ σ(k ∗ σ(W₁ x)), and + x where the map keeps its size and width.

    Batch norms stand behind all three. Sandler et al., "MobileNetV2: Inverted Residuals and Linear
    Bottlenecks", CVPR 2018, section 3.

    Shape: [n, channels, h, w] → [n, dim, h / stride, w / stride].
    """

    def __init__(
        self,
        channels: int,
        dim: int,
        stride: int = 1,
        ratio: int = 4,
        activation: Callable[[], nn.Module] = nn.ReLU,
    ) -> None:
        super().__init__()
        hidden = channels * ratio
        self.path = nn.Sequential(
            NormedConv(channels, hidden), activation(),
            NormedConv(hidden, hidden, 3, stride, groups=hidden), activation(),
            NormedConv(hidden, dim),
        )  # fmt: skip
        self.keeps = stride == 1 and channels == dim

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = cast(Tensor, self.path(x))
        return x + y if self.keeps else y
