"""Averages of values weighted by exponentials of keys and places (AFT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_size


class AttentionFree(nn.Module):
    """y_t = σ(q_t) ⊙ Σ_s exp(k_s + w_ts) v_s / Σ_s exp(k_s + w_ts), then a projection.

    exp(k + w) is a product of exp(k) and exp(w), so both sums are products with one matrix over the
    positions. Zhai et al., "An Attention Free Transformer", 2021, equation 2 (AFT-full). Keys are
    taken relative to the largest of their channel, which leaves the quotient as it is.

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.bias = nn.Parameter(torch.randn(positions, positions) * 0.1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = self.qkv(x).flatten(2).chunk(3, dim=1)
        check_size(self, "positions", k.shape[2:], self.bias.shape[1:])
        weights = (k - k.amax(-1, keepdim=True)).exp()
        places = self.bias.exp().T
        mean = ((weights * v) @ places) / (weights @ places)
        result: Tensor = self.proj((q.sigmoid() * mean).reshape(x.shape))
        return result
