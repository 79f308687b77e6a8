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
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        weights = ((q.transpose(-2, -1) @ k) * self.scale).softmax(dim=-1)
        mixed = v @ weights.transpose(-2, -1)
        result: Tensor = self.proj(mixed.reshape(n, c, h, w))
        return result
