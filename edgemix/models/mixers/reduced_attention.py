"""Softmax attention to a map of fewer positions."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.branches import GroupedBranches
from edgemix.models.mixers.attention import attended
from edgemix.models.sizes import check_heads


class ReducedAttention(nn.Module):
    """y = W (softmax(qᵀk / √d) v), with keys and values of an averaged map.

    Li et al., "Next-ViT", 2022, section 3.3 (E-MHSA); with branches for its four linear maps, the
    lightweight self-attention (RLMHSA) of Tan et al., "FMViT", 2023.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``pool``.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int = 2, pool: int = 1) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.shrink = nn.AvgPool2d(pool) if pool > 1 else nn.Identity()
        self.queries, self.keys, self.values, self.proj = (
            GroupedBranches(dim, dim) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        few = self.shrink(x)
        q, k, v = (
            y.reshape(len(x), self.heads, y.shape[1] // self.heads, -1)
            for y in (self.queries(x), self.keys(few), self.values(few))
        )
        result: Tensor = self.proj(attended(q, k, v).reshape(x.shape))
        return result
