"""Bands of a cosine spectrum, weighed by what the input is (DSM)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models.sizes import check_size


class DynamicSpectrum(nn.Module):
    """y = W C_hᵀ (Σ_b a_b(x) M_b ⊙ (C_h (V x) C_wᵀ)) C_w, C the cosine transform (DCT-II).

    M_b are the frequencies of a band, those where b ≤ B (u/h + v/w) / 2 < b + 1, and the weights
    a(x) = σ(W₂ GELU(W₁ mean(x))) are of each channel and band. C's rows have unit length: its
    inverse is Cᵀ. "Dynamic Spectrum Mixer for Visual Recognition", 2023, arXiv 2309.06721: tokens
    mixed in a cosine spectrum, whose bands weigh what a layer makes of the input.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Args:
        dim: c.
        height: of the map.
        width: of the map.
        bands: B.

    Raises:
        InputError: a band has no frequency; of the input, where its map is another.
    """

    down: Tensor
    across: Tensor
    members: Tensor

    def __init__(self, dim: int, height: int, width: int, bands: int = 4) -> None:
        super().__init__()
        self.size, self.bands = (height, width), bands
        self.register_buffer("down", cosines(height), persistent=False)
        self.register_buffer("across", cosines(width), persistent=False)
        self.register_buffer("members", _bands(height, width, bands), persistent=False)
        if not bool(self.members.any(1).all()):
            raise InputError(
                f"a map of {height}×{width} has no frequencies for {bands} bands",
                do="ask for fewer bands",
            )
        self.into, self.proj = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, dim, 1)
        self.weigh = nn.Sequential(
            nn.Conv2d(dim, dim, 1), nn.GELU(), nn.Conv2d(dim, dim * bands, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        n, c, h, w = x.shape
        weights = self.weigh(x.mean((2, 3), keepdim=True)).reshape(n, c, self.bands)
        spectrum = self.down @ self.into(x) @ self.across.T
        spectrum = spectrum * (weights @ self.members).reshape(n, c, h, w)
        result: Tensor = self.proj(self.down.T @ spectrum @ self.across)
        return result


def cosines(length: int) -> Tensor:
    """The orthogonal DCT-II: its row u is cos(π u (i + 1/2) / length), scaled to unit length."""
    at = torch.arange(length, dtype=torch.float64)
    rows = torch.cos(math.pi / length * at[:, None] * (at + 0.5))
    return functional.normalize(rows, dim=1).to(torch.get_default_dtype())


def _bands(height: int, width: int, bands: int) -> Tensor:
    """Which frequencies are in which band: zeros and ones [bands, h·w]."""
    down, across = torch.arange(height)[:, None] * width, torch.arange(width) * height
    # In integers: a frequency on a border belongs to the band above it, whatever floats say.
    of = (bands * (down + across)).flatten() // (2 * height * width)
    members: Tensor = of == torch.arange(bands)[:, None]
    return members.to(torch.get_default_dtype())
