"""Softmax attention among channels: its cost grows with positions, not with their square."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError


class ChannelAttention(nn.Module):
    """softmax(τ q̂ k̂ᵀ) v among the channels of each head, q̂ and k̂ of unit length over positions.

    El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021, equation 2; EdgeNeXt
    calls it transposed attention.

    Shape: [n, c, h, w] → [n, c, h, w].

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        if dim % heads:
            raise InputError(f"{dim} channels do not divide into {heads} heads")
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        q, k, v = self.qkv(x).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        weights = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)
        result: Tensor = self.proj((weights @ v).reshape(n, c, h, w))
        return result
