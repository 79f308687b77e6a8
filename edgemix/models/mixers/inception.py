"""Convolution, max pooling and attention side by side, each on channels of its own (iFormer)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended, in_heads


class Inception(nn.Module):
    """y = W (z + k ∗ z), z = [conv(x₁), pool(x₂), attention(x₃)].

    High frequencies take the two local branches, which double their channels; low ones attention,
    on a map that is pooled before and repeated behind it.

    Si et al., "Inception Transformer", NeurIPS 2022, section 3.1.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``pool``.

    Raises:
        InputError: the heads leave no even number of channels to the local branches; of the input,
            where its map does not divide.
    """

    def __init__(self, dim: int, heads: int, head_dim: int = 32, pool: int = 1) -> None:
        super().__init__()
        low = heads * head_dim
        high = dim - low
        if high <= 0 or high % 2:
            raise InputError(
                f"{heads} heads of {head_dim} leave {high} of {dim} channels to two local branches"
            )
        self.sizes = [high // 2, high // 2, low]
        self.heads, self.pool = heads, pool
        self.conv = nn.Sequential(
            nn.Conv2d(high // 2, high, 1, bias=False),
            nn.Conv2d(high, high, 3, padding=1, groups=high, bias=False),
            nn.GELU(),
        )
        self.peaks = nn.Sequential(nn.MaxPool2d(3, 1, 1), nn.Conv2d(high // 2, high, 1), nn.GELU())
        self.shrink = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.qkv = nn.Conv2d(low, 3 * low, 1)
        self.grow = nn.Upsample(scale_factor=pool) if pool > 1 else nn.Identity()
        wide = 2 * high + low
        self.fuse = nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False)
        self.proj = nn.Conv2d(wide, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.shape[2] % self.pool or x.shape[3] % self.pool:
            raise InputError(
                f"a map of {x.shape[2]}×{x.shape[3]} does not divide into windows of {self.pool}",
                do="give an image whose maps do",
            )
        first, second, third = torch.split(x, self.sizes, dim=1)
        third = self.shrink(third)
        low = self.grow(attended(*in_heads(self.qkv(third), self.heads)).reshape(third.shape))
        wide = torch.cat([self.conv(first), self.peaks(second), low], dim=1)
        result: Tensor = self.proj(wide + self.fuse(wide))
        return result
