"""Attention whose queries and keys are one number for each head (S2AFormer)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended
from edgemix.models.sizes import check_heads


class StripAttention(nn.Module):
    """y = W (softmax(q kᵀ) v): q of all positions, k and v of a smaller map K ∗ x.

    A head compares one channel of queries with one of keys, strips of h·w and h·w / r² numbers; K
    is depthwise with stride r. Xu et al., "S2AFormer: Strip Self-Attention for Efficient Vision
    Transformer", 2025, the attention of its hybrid perception block.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``stride``.

    Args:
        dim: c.
        heads: that c divides into.
        stride: r, of the smaller map.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``; of the input, where its map does not
            divide.
    """

    def __init__(self, dim: int, heads: int = 2, stride: int = 2) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.stride = heads, stride
        self.shrink = nn.Conv2d(dim, dim, stride, stride, groups=dim)
        self.queries, self.keys = nn.Conv2d(dim, heads, 1), nn.Conv2d(dim, heads, 1)
        self.values, self.proj = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        if h % self.stride or w % self.stride:
            raise InputError(
                f"a map of {h}×{w} does not divide into cells of {self.stride}",
                do="give an image whose maps do",
            )
        few = self.shrink(x)
        q, k = (y.reshape(n, self.heads, 1, -1) for y in (self.queries(x), self.keys(few)))
        v = self.values(few).reshape(n, self.heads, c // self.heads, -1)
        result: Tensor = self.proj(attended(q, k, v).reshape(x.shape))
        return result
