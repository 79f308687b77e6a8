"""The channel mixer whose gate looks at its neighbours (TransNeXt)."""

from __future__ import annotations

from torch import Tensor, nn


class ConvGlu(nn.Module):
    """y = W₃ (GELU(K ∗ W₁ x) ⊙ W₂ x), K a depthwise kernel of 3×3.

    Every channel of a position is gated by what lies around it. Shi, "TransNeXt: Robust Foveal
    Visual Perception for Vision Transformers", CVPR 2024, section 3.

    Shape: [n, c, h, w] → [n, c, h, w].

    Args:
        dim: c.
        ratio: of the hidden channels in a perceptron of as many weights; two thirds of them are
            here.
    """

    def __init__(self, dim: int, ratio: float = 3.0) -> None:
        super().__init__()
        hidden = int(dim * ratio * 2 / 3)
        self.expand = nn.Conv2d(dim, 2 * hidden, 1)
        self.look = nn.Sequential(nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden), nn.GELU())
        self.contract = nn.Conv2d(hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        gate, value = self.expand(x).chunk(2, dim=1)
        result: Tensor = self.contract(self.look(gate) * value)
        return result
