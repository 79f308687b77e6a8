"""Attention whose products are taken in the cheap order."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError


class EfficientAttention(nn.Module):
    """softmax(q) (softmax(k)ᵀ v): queries over their channels, keys over the positions.

    Shen et al., "Efficient Attention: Attention with Linear Complexities", WACV 2021, equation 8.

    Shape: [n, c, h, w] → [n, c, h, w].

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
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        context = k.softmax(dim=-1) @ v.transpose(-2, -1)
        mixed = context.transpose(-2, -1) @ q.softmax(dim=-2)
        result: Tensor = self.proj(mixed.reshape(n, c, h, w))
        return result
