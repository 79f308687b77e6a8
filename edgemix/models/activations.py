"""Activations of the MetaFormer papers."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StarReLU(nn.Module):
    """y = s·relu(x)² + b with two learned numbers.

    Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024, equation 4: s and b start where a
    normal input gives mean 0 and variance 1.

    Shape: any → the same.
    """

    def __init__(self, scale: float = 0.8944, bias: float = -0.4472) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([scale]))
        self.bias = nn.Parameter(torch.tensor([bias]))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self.scale * torch.relu(x).square() + self.bias
