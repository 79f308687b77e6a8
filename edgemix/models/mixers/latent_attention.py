"""Attention through latent vectors that positions are compared with (Latte)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LatentAttention(nn.Module):
    """y_t = Σ_l p(l | t) Σ_s p(s | l) v_s, p(l | t) = softmax_l(q_t), p(s | l) = softmax_s(k_s).

    Two small products in place of one that is quadratic in the positions. Dolga et al., "Latte:
    Latent Attention for Linear Time Transformers", 2024, section 3, the form that looks both ways.

    Shape: [n, c, h, w] → [n, c, h, w].

    Args:
        dim: c.
        latents: l; c / 2 if None.
    """

    def __init__(self, dim: int, latents: int | None = None) -> None:
        super().__init__()
        count = max(1, dim // 2) if latents is None else latents
        self.sizes = [count, count, dim]
        self.qkv = nn.Conv2d(dim, sum(self.sizes), 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = torch.split(self.qkv(x).flatten(2), self.sizes, dim=1)
        held = k.softmax(dim=-1) @ v.transpose(1, 2)
        mixed = held.transpose(1, 2) @ q.softmax(dim=1)
        result: Tensor = self.proj(mixed.reshape(x.shape))
        return result
