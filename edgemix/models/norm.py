"""Norms of feature maps and of sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class FeatureNorm(nn.BatchNorm1d):
    """Batch normalization of the last axis, for sequences and for single steps alike.

    Statistics per feature over all other axes; folds into the linear map before it.

    Shape: [..., features] → [..., features].
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.ndim == 2:
            return super().forward(x)
        return super().forward(x.flatten(0, -2)).reshape(x.shape)


class _AffineNorm(nn.Module):
    """Gains and, if wanted, shifts for each channel."""

    def __init__(self, dim: int, *, bias: bool = True, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.eps = eps


class ChannelNorm(_AffineNorm):
    """Layer normalization over the channels of each position.

    Ba et al., "Layer Normalization", 2016, as ConvNeXt and CAFormer use it on maps.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        rows = x.permute(0, 2, 3, 1)
        normed = functional.layer_norm(rows, rows.shape[-1:], self.weight, self.bias, self.eps)
        return normed.permute(0, 3, 1, 2)


class MapNorm(_AffineNorm):
    """Normalization over channels and positions together, gains for each channel.

    Wu and He, "Group Normalization", ECCV 2018, with one group, as PoolFormer uses it.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return functional.group_norm(x, 1, self.weight, self.bias, self.eps)
