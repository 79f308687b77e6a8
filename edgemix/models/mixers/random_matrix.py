"""A matrix over the positions that is drawn once and never learned."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_size


class RandomMatrix(nn.Module):
    """y = W x over the positions, W = softmax(u) of uniform u, fixed.

    Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024, equation 3 (RandFormer).

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        drawn = torch.rand(positions, positions).softmax(dim=-1)
        self.weight = nn.Parameter(drawn, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        tokens = x.flatten(2)
        check_size(self, "positions", tokens.shape[2:], self.weight.shape[1:])
        return (tokens @ self.weight.T).reshape(x.shape)
