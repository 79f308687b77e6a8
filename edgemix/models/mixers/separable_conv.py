"""An inverted separable convolution as token mixer (ConvFormer, CAFormer)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.activations import StarReLU


class SeparableConv(nn.Module):
    """y = W₂ (k ∗ σ(W₁ x)): a depthwise kernel between two 1×1 convolutions, nothing biased.

    Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024, equation 5; Sandler et al.,
    "MobileNetV2", CVPR 2018.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, ratio: float = 2.0, kernel: int = 7) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = nn.Conv2d(dim, hidden, 1, bias=False)
        self.activation = StarReLU()
        self.depthwise = nn.Conv2d(
            hidden, hidden, kernel, padding=kernel // 2, groups=hidden, bias=False
        )
        self.contract = nn.Conv2d(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.contract(self.depthwise(self.activation(self.expand(x))))
        return result
