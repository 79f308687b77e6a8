"""A depthwise convolution with a large kernel as token mixer."""

from __future__ import annotations

from torch import nn


class LargeKernel(nn.Conv2d):
    """y = k ∗ x, every channel with a kernel of its own.

    Liu et al., "A ConvNet for the 2020s", CVPR 2022, section 2.5 (7×7); Ding et al., "Scaling Up
    Your Kernels to 31x31", CVPR 2022.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, kernel: int = 7) -> None:
        super().__init__(dim, dim, kernel, padding=kernel // 2, groups=dim)
