"""Products with two block-diagonal matrices and permutations between them (Monarch Mixer)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.sizes import check_size


class Monarch(nn.Module):
    """y = W (q ⊙ M₂(k ⊙ M₁ v)), M = P L P R over the positions: a gated long mixer.

    n = b² positions are a square; R has a b × b block for each of its rows, L for each of its
    columns, and the permutation P is the transposition between them: O(n^1.5) products. Dao et
    al., "Monarch", ICML 2022, definition 3.1; Fu et al., "Monarch Mixer", NeurIPS 2023, section 3,
    whose kernels are learned here as the blocks themselves.

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.

    Raises:
        InputError: ``positions`` is no square; of the input, where its size is another.
    """

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        side = math.isqrt(positions)
        if side * side != positions:
            raise InputError(f"{positions} positions are no square", do="choose 16, 64, 256 …")
        self.positions = positions
        self.into = nn.Conv2d(dim, 3 * dim, 1)
        self.blocks = nn.ParameterList(
            nn.Parameter(torch.randn(side, side, side) * side**-0.5) for _ in range(4)
        )
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "positions", x.flatten(2).shape[2:], (self.positions,))
        q, k, v = self.into(x).flatten(2).chunk(3, dim=1)
        first, second = self.blocks[:2], self.blocks[2:]
        mixed = q * _product(k * _product(v, *first), *second)
        result: Tensor = self.proj(mixed.reshape(x.shape))
        return result


def _product(x: Tensor, right: Tensor, left: Tensor) -> Tensor:
    """P L P R x over the positions of x [n, c, b²]."""
    n, c, positions = x.shape
    side = right.shape[0]
    # A block for every row: rows are the batch of the product.
    rows = x.reshape(n, c, side, side).transpose(1, 2) @ right.transpose(1, 2)
    columns = rows.permute(0, 3, 2, 1) @ left.transpose(1, 2)
    return columns.permute(0, 2, 3, 1).reshape(n, c, positions)
