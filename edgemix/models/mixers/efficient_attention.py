"""Attention whose products are taken in the cheap order."""

from __future__ import annotations

from torch import Tensor

from edgemix.models.mixers.attention import HeadedMixer


class EfficientAttention(HeadedMixer):
    """softmax(q) (softmax(k)ᵀ v): queries over their channels, keys over the positions.

    Shen et al., "Efficient Attention: Attention with Linear Complexities", WACV 2021, equation 8.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        context = k.softmax(dim=-1) @ v.transpose(-2, -1)
        return context.transpose(-2, -1) @ q.softmax(dim=-2)
