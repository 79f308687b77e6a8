"""Convolutional additive attention (CAS-ViT): no product between tokens."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class AdditiveAttention(nn.Module):
    """y = P ∗ ((D ∗ (φ(q) + φ(k))) ⊙ v), D and P depthwise kernels.

    φ weighs positions, then channels: φ(x) = c(s(x)), with s(x) = x ⊙ sigmoid(w · relu(BN(K ∗ x))),
    one number a position, and c(x) = x ⊙ sigmoid(W mean(x)), one a channel.

    Zhang et al., "CAS-ViT: Convolutional Additive Self-attention Vision Transformers", 2024,
    equations 3 to 6.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, kernel: int = 3) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.weigh_q = nn.Sequential(_Positions(dim, kernel), _Channels(dim))
        self.weigh_k = nn.Sequential(_Positions(dim, kernel), _Channels(dim))
        self.context = _depthwise(dim, kernel)
        self.proj = _depthwise(dim, kernel)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = self.qkv(x).chunk(3, dim=1)
        context = self.context(self.weigh_q(q) + self.weigh_k(k))
        return cast(Tensor, self.proj(context * v))


def _depthwise(dim: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


class _Positions(nn.Module):
    def __init__(self, dim: int, kernel: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            _depthwise(dim, kernel), nn.BatchNorm2d(dim), nn.ReLU(),
            nn.Conv2d(dim, 1, 1, bias=False), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.gate(x))


class _Channels(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(dim, dim, 1, bias=False), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x * self.gate(x))
