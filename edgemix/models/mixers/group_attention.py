"""Attention between the channels of a group (DaViT)."""

from __future__ import annotations

from torch import Tensor

from edgemix.models.mixers.attention import HeadedMixer


class GroupAttention(HeadedMixer):
    """softmax(q kᵀ / √d) v: d channels of a group are the tokens, positions their features.

    Ding et al., "DaViT: Dual Attention Vision Transformers", ECCV 2022, equation 4. Unlike the
    attention of XCiT nothing is divided by its length, and no temperature is learned.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        scale = float(q.shape[2]) ** -0.5
        mixed: Tensor = ((q * scale) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return mixed
