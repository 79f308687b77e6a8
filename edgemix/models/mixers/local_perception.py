"""A depthwise convolution between two 1×1 ones, in front of a block's mixers (CAS-ViT)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class LocalPerception(nn.Module):
    """y = W₂ σ(k ∗ BN(W₁ x)).

    Zhang et al., "CAS-ViT", 2024, figure 3 ("integration subnet").

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(dim, dim, 1),
            nn.BatchNorm2d(dim),
            nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim),
            nn.GELU(),
            nn.Conv2d(dim, dim, 1),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.layers(x))
