"""Attention to near positions and to far averages in one softmax (TransNeXt)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models.norm import ChannelNorm
from edgemix.models.sizes import check_heads, check_size

_SHARPNESS = 1 / 0.24
"""Of the softmax before training, as published."""


class AggregatedAttention(nn.Module):
    """Each position attends to the window around it and to the whole map, averaged in cells.

    With unit queries q̂ and keys k̂, of the window ρ and of the cells σ,

        s = τ log(N) (q̂ + e)ᵀ [k̂_ρ, k̂_σ] + [b_ρ, b_σ],    [a_ρ, a_σ] = softmax(s),
        y = W ((a_ρ + q̂ᵀ t + u) v_ρ + a_σ v_σ).

    N is the number of keys that a position has, and τ = softplus of a learned number. The cells are
    those of LN(pool(GELU(W x))). b_ρ is learned for each place of the window, and b_σ is what a
    perceptron makes of the distance to a cell on a logarithmic scale. e stands for any query, and
    t and u for keys that depend on no input. Shi, "TransNeXt: Robust Foveal Visual Perception for
    Vision Transformers", CVPR 2024, section 3.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Args:
        dim: c.
        height: of the map.
        width: of the map.
        heads: that c divides into.
        window: side of the window, odd.
        pool: side of a cell.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``, the map none of ``pool``, or ``window`` is
            even; of the input, where its map is another.
    """

    seen: Tensor
    length: Tensor
    distance: Tensor

    def __init__(
        self, dim: int, height: int, width: int, heads: int = 2, window: int = 3, pool: int = 2
    ) -> None:
        super().__init__()
        check_heads(dim, heads)
        if height % pool or width % pool:
            raise InputError(f"a map of {height}×{width} does not divide into cells of {pool}")
        if window % 2 == 0:
            raise InputError(f"a window of {window} has no middle", do="choose 3, 5, 7 …")
        self.size, self.heads, self.window = (height, width), heads, window
        own, places = dim // heads, window * window
        cells = (height // pool) * (width // pool)
        self.queries, self.pairs = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, 2 * dim, 1)
        self.shrink = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.AvgPool2d(pool), ChannelNorm(dim)
        )
        self.proj = nn.Conv2d(dim, dim, 1)
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(math.expm1(_SHARPNESS))))
        self.any_query = nn.Parameter(torch.randn(heads, own, 1) * 0.02)
        self.any_keys = nn.Parameter(torch.randn(heads, places, own) * 0.02)
        self.any_bias = nn.Parameter(torch.zeros(heads, places, 1))
        self.near_bias = nn.Parameter(torch.randn(heads, places, 1) * 0.02)
        self.far_bias = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, heads))
        inside = functional.unfold(torch.ones(1, 1, height, width), window, padding=window // 2)
        seen = torch.cat([inside[0], torch.ones(cells, height * width)])
        self.register_buffer("seen", seen, persistent=False)
        self.register_buffer("length", seen.sum(0).log(), persistent=False)
        self.register_buffer("distance", _distances(height, width, pool), persistent=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        q = _unit(self._in_heads(self.queries(x)))
        k, v = self.pairs(x).chunk(2, dim=1)
        k, v = self._windows(_unit(self._in_heads(k)), x), self._windows(v, x)
        far_k, far_v = (self._in_heads(y) for y in self.pairs(self.shrink(x)).chunk(2, dim=1))

        asked = (q + self.any_query) * functional.softplus(self.temperature) * self.length
        near = (asked.unsqueeze(3) * k).sum(2) + self.near_bias
        far = _unit(far_k).transpose(2, 3) @ asked + self.far_bias(self.distance).permute(2, 0, 1)
        scores = torch.cat([near, far], dim=2)
        # A window's places off the map weigh nothing: no number has to stand for −∞.
        weights = torch.exp(scores - scores.amax(2, keepdim=True)) * self.seen
        weights = weights / weights.sum(2, keepdim=True)
        near, far = weights[:, :, : near.shape[2]], weights[:, :, near.shape[2] :]
        near = near + self.any_keys @ q + self.any_bias
        mixed = (near.unsqueeze(2) * v).sum(3) + far_v @ far
        result: Tensor = self.proj(mixed.reshape(x.shape))
        return result

    def _in_heads(self, x: Tensor) -> Tensor:
        """[n, c, h, w] → [n, heads, c / heads, h·w]."""
        return x.reshape(x.shape[0], self.heads, x.shape[1] // self.heads, -1)

    def _windows(self, values: Tensor, x: Tensor) -> Tensor:
        """What every position finds around it: [n, heads, c / heads, places, h·w]."""
        n, c, h, w = x.shape
        around = functional.unfold(values.reshape(x.shape), self.window, padding=self.window // 2)
        return around.reshape(n, self.heads, c // self.heads, -1, h * w)


def _unit(x: Tensor) -> Tensor:
    """Queries or keys [n, heads, c / heads, ...] of length 1."""
    return functional.normalize(x, dim=2)


def _distances(height: int, width: int, pool: int) -> Tensor:
    """From cells to positions, down and to the right, on a logarithmic scale: [cells, h·w, 2]."""
    down, right = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([down, right], dim=-1)
    middles = places[::pool, ::pool] + (pool - 1) / 2
    away = places.reshape(1, -1, 2) - middles.reshape(-1, 1, 2)
    return away.sign() * (1 + away.abs()).log2()
