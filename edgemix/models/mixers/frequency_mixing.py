"""Attention beside convolutions: low frequencies and several kinds of high ones."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.branches import GroupedBranches
from edgemix.models.mixers.convolutional_fusion import ConvolutionalFusion
from edgemix.models.mixers.reduced_attention import ReducedAttention


class FrequencyMixing(nn.Module):
    """y = W [l, f₁, f₂, …], l = z + attention(z), f_i = f_{i−1} + conv_i(f_{i−1}), f₀ = V l.

    What the multi-frequency fusion block (FMB) of Tan et al., "FMViT", 2023, mixes tokens by:
    attention gives low frequencies, each convolution higher ones, and all of them are passed on.
    That high ones follow low ones is Li et al., "Next-ViT", 2022, section 3.3.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``pool``.

    Raises:
        InputError: the channels do not divide into half for the low and equal shares of the rest.
    """

    def __init__(
        self, dim: int, heads: int = 1, pool: int = 1, kernels: tuple[int, ...] = (3, 7)
    ) -> None:
        super().__init__()
        low, share = dim // 2, dim // 2 // len(kernels)
        if low * 2 != dim or share * len(kernels) != low or share % 2:
            raise InputError(
                f"{dim} channels do not divide into half and {len(kernels)} equal even shares",
                do=f"take a multiple of {4 * len(kernels)} channels",
            )
        self.first = GroupedBranches(dim, low)
        self.attention = ReducedAttention(low, heads, pool)
        self.narrow = GroupedBranches(low, share)
        self.convolutions = nn.ModuleList(ConvolutionalFusion(share, k) for k in kernels)
        self.proj = GroupedBranches(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        low = self.first(x)
        low = low + self.attention(low)
        found, high = [low], self.narrow(low)
        for convolution in self.convolutions:
            high = high + convolution(high)
            found.append(high)
        result: Tensor = self.proj(torch.cat(found, dim=1))
        return result
