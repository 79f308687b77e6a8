"""Convolutions of several scales that modulate a value (SMT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_heads


class ScaleModulation(nn.Module):
    """y = W (σ(A [K_i ∗ (U x)_i]) ⊙ V x): heads with kernels of 3, 5, 7, … side by side.

    A mixes the first channels of all heads with one another, then the second ones, and so on. Lin
    et al., "Scale-Aware Modulation Meet Transformer", ICCV 2023, section 3.1.

    Shape: [n, c, h, w] → [n, c, h, w].

    Raises:
        InputError: the channels do not divide into heads.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, own = heads, dim // heads
        self.into, self.value = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.scales = nn.ModuleList(
            nn.Conv2d(own, own, 3 + 2 * i, padding=1 + i, groups=own) for i in range(heads)
        )
        self.gather = nn.Sequential(nn.Conv2d(dim, dim, 1, groups=own), nn.GELU())
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        parts = self.into(x).chunk(self.heads, dim=1)
        scaled = [scale(part) for scale, part in zip(self.scales, parts, strict=True)]
        modulator = self.gather(torch.stack(scaled, dim=2).reshape(x.shape))
        result: Tensor = self.proj(modulator * self.value(x))
        return result
