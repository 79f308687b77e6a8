"""Softmax attention inside of windows (Twins, DaViT, TransNormer's first layers)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended
from edgemix.models.sizes import check_heads


class WindowAttention(nn.Module):
    """softmax(qᵀk / √d) v among the positions of a window.

    Chu et al., "Twins: Revisiting the Design of Spatial Attention in Vision Transformers", NeurIPS
    2021, section 3.2, as locally-grouped attention; Ding et al., "DaViT: Dual Attention Vision
    Transformers", ECCV 2022, equation 3, as spatial window attention.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``window``.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``; of the input, where its map does not
            divide.
    """

    def __init__(self, dim: int, heads: int = 2, window: int = 4) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.window = heads, window
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        side = self.window
        if h % side or w % side:
            raise InputError(
                f"a map of {h}×{w} does not divide into windows of {side}",
                do="give an image whose maps do",
            )
        rows, columns, d = h // side, w // side, c // self.heads
        # [n · rows, 3 · heads · d, side, columns, side]: five axes are what all targets move.
        lines = self.qkv(x).reshape(n, 3 * c, rows, side, w).transpose(1, 2)
        cells = lines.reshape(n * rows, 3 * c, side, columns, side).permute(0, 3, 1, 2, 4)
        q, k, v = cells.reshape(n * rows * columns, 3, self.heads, d, side * side).unbind(1)
        mixed = attended(q, k, v).reshape(n * rows, columns, c, side, side)
        lines = mixed.permute(0, 2, 3, 1, 4).reshape(n, rows, c, side, w)
        result: Tensor = self.proj(lines.transpose(1, 2).reshape(x.shape))
        return result
