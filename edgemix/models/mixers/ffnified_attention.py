"""Attention made of convolutions: large kernels for keys and values, GELU for softmax (FFNet)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from edgemix.models.branches import DepthwiseBranches, NormedConv

_BRANCHED = 7
"""Kernels of that size are trained with a second branch."""


class FfnifiedAttention(nn.Module):
    """y = V ∗ σ(K ∗ BN(W x)): keys K and values V are depthwise kernels.

    Yun et al., "MetaMixer Is All You Need", 2024, equation 4.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, kernel: int = 7) -> None:
        super().__init__()
        self.query = NormedConv(dim, dim)
        self.key = _depthwise(dim, kernel)
        self.activation = nn.GELU()
        self.value = _depthwise(dim, kernel)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.value(self.activation(self.key(self.query(x)))))


def _depthwise(dim: int, kernel: int) -> nn.Module:
    if kernel == _BRANCHED:
        return DepthwiseBranches(dim, dim, kernel)
    return nn.Conv2d(dim, dim, kernel, padding=kernel // 2, groups=dim)


class SpatialMlp(nn.Module):
    """y = W₂ σ(W₁ BN(K ∗ x)): a channel mixer behind a depthwise kernel, as in ConvNeXt.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, ratio: float = 3.0, kernel: int = 7) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.depthwise = (
            DepthwiseBranches(dim, dim, kernel)
            if kernel == _BRANCHED
            else NormedConv(dim, dim, kernel, groups=dim)
        )
        self.expand = nn.Conv2d(dim, hidden, 1)
        self.activation = nn.GELU()
        self.contract = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.contract(self.activation(self.expand(self.depthwise(x)))))
