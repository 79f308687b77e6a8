"""A learned factor for every channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Scale(nn.Module):
    """y = s x: LayerScale behind a mixer, ResScale on the path beside it.

    Touvron et al., "Going deeper with Image Transformers", ICCV 2021, equation 3; Shleifer et al.,
    "NormFormer", 2021, for the residual path.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, start: float = 1.0) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((dim, 1, 1), start))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x * self.factor
