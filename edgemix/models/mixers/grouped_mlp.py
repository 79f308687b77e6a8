"""A channel MLP whose convolutions were trained in several groups at once."""

from __future__ import annotations

from torch import nn

from edgemix.models.branches import GroupedBranches


class GroupedMlp(nn.Sequential):
    """y = gMLP(ReLU(gMLP(x))).

    Tan et al., "FMViT", 2023; which activation and which groups is chosen here.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, ratio: float = 2.0) -> None:
        wide = int(ratio * dim)
        super().__init__(GroupedBranches(dim, wide), nn.ReLU(), GroupedBranches(wide, dim))
