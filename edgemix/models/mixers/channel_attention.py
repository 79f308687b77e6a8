"""Softmax attention among channels: its cost grows with positions, not with their square."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.mixers.attention import HeadedMixer


class ChannelAttention(HeadedMixer):
    """softmax(τ q̂ k̂ᵀ) v among the channels of each head, q̂ and k̂ of unit length over positions.

    El-Nouby et al., "XCiT: Cross-Covariance Image Transformers", NeurIPS 2021, equation 2; EdgeNeXt
    calls it transposed attention.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__(dim, heads)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        return (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1) @ v
