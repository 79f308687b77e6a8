"""Softmax self-attention over the positions of a feature map."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError


class Attention(nn.Module):
    """softmax(qᵀk / √d) v with h heads; q, k, v and the projection are 1×1 convolutions.

    Vaswani et al., "Attention Is All You Need", 2017, equation 1; on maps, as the last stages of
    CAFormer and EfficientFormer use it.

    Shape: [n, c, h, w] → [n, c, h, w], with h·w tokens.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"{dim} channels do not divide into {heads} heads")
        self.heads = heads
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.proj(attended(self.qkv(x), self.heads))
        return result


def attended(qkv: Tensor, heads: int) -> Tensor:
    """softmax(qᵀk / √d) v of queries, keys and values [n, 3c, h, w]: [n, c, h, w]."""
    n, c, h, w = qkv.shape
    q, k, v = qkv.reshape(n, 3, heads, c // 3 // heads, h * w).unbind(1)
    scale = float(q.shape[2]) ** -0.5
    weights = ((q.transpose(-2, -1) @ k) * scale).softmax(dim=-1)
    mixed: Tensor = v @ weights.transpose(-2, -1)
    return mixed.reshape(n, c // 3, h, w)
