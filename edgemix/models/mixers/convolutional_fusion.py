"""A depthwise convolution and a map of channels, both trained in branches."""

from __future__ import annotations

from torch import nn

from edgemix.models.branches import DepthwiseBranches, GroupedBranches


class ConvolutionalFusion(nn.Sequential):
    """y = gMLP(ReLU(k ∗ x)): what the convolutional fusion block (CFB) mixes tokens by.

    Tan et al., "FMViT", 2023; the order is that of Li et al., "Next-ViT", 2022, section 3.2.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__(DepthwiseBranches(dim, dim, kernel), nn.ReLU(), GroupedBranches(dim, dim))
