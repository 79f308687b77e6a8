"""Pooling as token mixer (PoolFormer)."""

from __future__ import annotations

from torch import Tensor, nn


class Pooling(nn.Module):
    """y = avg_pool(x) − x, the window's padding not counted.

    Yu et al., "MetaFormer Is Actually What You Need for Vision", CVPR 2022, section 3.2: the
    subtraction takes the residual path of the block into account.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, window: int = 3) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(window, stride=1, padding=window // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        pooled: Tensor = self.pool(x)
        return pooled - x
