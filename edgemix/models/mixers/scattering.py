"""A complex wavelet transform whose low band is weighed and whose high bands are blended (SVT)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.fourier import ComplexLinear
from edgemix.models.sizes import check_size

_LOW = (-0.05, 0.25, 0.6, 0.25, -0.05)
_HIGH = tuple(x / 280 for x in (3, -15, -73, 170, -73, -15, 3))
"""Kingsbury's near-symmetric pair of 5 and 7 taps."""


class Scattering(nn.Module):
    """y = S⁻¹(K ⊙ low, B_t(B_c(high))) with low, high = S(x), one level of the dual-tree transform.

    The tree's two filters, at all places along both axes, give four maps. The one that is low both
    ways has a real weight K for each channel and place. The other three are read by squares
    [[a, b], [c, d]] as six complex bands of half the size,

        z± = (a ∓ d + j (b ± c)) / √2,

    which see edges of six directions. The blends B are complex perceptrons of two layers with a
    ReLU of both parts between them: B_c mixes channels in groups at every place, and B_t the places
    of a row. Patro and Agneeswaran, "Scattering Vision Transformer: Spectral Mixing Matters",
    NeurIPS 2023; Selesnick et al., "The Dual-Tree Complex Wavelet Transform", 2005.
    Filters are those of 5 and 7 taps in the place of 13 and 19, which are longer than a small map.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Args:
        dim: c.
        height: of the map, even.
        width: of the map, even.
        groups: of channels in B_c; 4 as published.

    Raises:
        InputError: ``dim`` is no multiple of ``groups``, or the map is odd; of the input, where its
            map is another.
    """

    def __init__(self, dim: int, height: int, width: int, groups: int = 2) -> None:
        super().__init__()
        if dim % groups:
            raise InputError(f"{dim} channels do not divide into {groups} groups")
        self.size = (height, width)
        self.wavelets = DualTree(height, width)
        self.low = nn.Parameter(torch.randn(dim, height, width) * 0.02)
        self.channels = _Blend(dim, groups)
        self.places = _Blend(height * width // 4, height // 2)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        low, high = self.wavelets(x)
        n, _, bands, c, places = high.shape
        high = self.channels(high.transpose(2, 3).reshape(n, 2, c, bands * places))
        high = high.reshape(n, 2, c, bands, places).permute(0, 1, 4, 3, 2)
        high = self.places(high.reshape(n, 2, places, bands * c))
        high = high.reshape(n, 2, places, bands, c).permute(0, 1, 3, 4, 2)
        return self.wavelets.inverse(low * self.low, high)


class DualTree(nn.Module):
    """One level of the dual-tree complex wavelet transform, and its inverse.

    Maps go on beyond their borders as in a mirror there. The low map has its even rows and columns
    in front of its odd ones: products with matrices then leave the squares in four maps.

    Shape: [n, c, h, w] → low [n, c, h, w] and high [n, 2, 6, c, h·w / 4], real parts and imaginary
    parts of six bands.

    Raises:
        InputError: the map is odd.
    """

    down: Tensor
    across: Tensor
    up: Tensor
    back: Tensor
    squares: Tensor

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        if height % 2 or width % 2:
            raise InputError(f"a map of {height}×{width} does not divide into squares of 2")
        low, high = _turned(_HIGH), _turned(_LOW)
        for there, back, length in (("down", "up", height), ("across", "back", width)):
            order = torch.arange(length).reshape(-1, 2).T.flatten()
            both = torch.cat([_filter(t, length)[order] for t in (_LOW, _HIGH)])
            self.register_buffer(there, both, persistent=False)
            both = torch.cat([_filter(t, length)[:, order] for t in (low, high)], dim=1)
            self.register_buffer(back, both, persistent=False)
        # Real parts of z₊ and z₋, then imaginary ones, of a, b, c and d.
        parts = [[1, 0, 0, -1], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, -1, 0]]
        self.register_buffer("squares", torch.tensor(parts) * 2**-0.5, persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        n, c, h, w = x.shape
        low, *bands = _quarters(self.down @ x @ self.across.T)
        corners = torch.stack(_quarters(torch.cat(bands, dim=1)), dim=2)
        parts = self.squares @ corners.reshape(n, 3 * c, 4, h * w // 4)
        high = parts.reshape(n, 3, c, 4, h * w // 4).permute(0, 3, 1, 2, 4)
        return low, high.reshape(n, 2, 6, c, h * w // 4)

    def inverse(self, low: Tensor, high: Tensor) -> Tensor:
        """The map [n, c, h, w] that has these bands."""
        n, c, h, w = low.shape
        parts = high.reshape(n, 4, 3, c, h * w // 4).permute(0, 2, 3, 1, 4)
        corners = self.squares.T @ parts.reshape(n, 3 * c, 4, h * w // 4)
        bands = _whole(corners.reshape(n, 3 * c, 4, h // 2, w // 2).unbind(2))
        return self.up @ _whole((low, *bands.chunk(3, dim=1))) @ self.back.T


def _quarters(x: Tensor) -> list[Tensor]:
    """Upper left, upper right, lower left, lower right."""
    return [part for half in x.chunk(2, dim=2) for part in half.chunk(2, dim=3)]


def _whole(quarters: Sequence[Tensor]) -> Tensor:
    """What :func:`_quarters` took apart."""
    halves = [torch.cat([*quarters[i : i + 2]], dim=3) for i in (0, 2)]
    return torch.cat(halves, dim=2)


class _Blend(nn.Module):
    """W₂ ReLU(W₁ z + b₁) + b₂ of complex numbers in groups.

    Shape: [n, 2, dim, m] → the same, real parts and imaginary parts.
    """

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        self.groups = groups
        self.layers = nn.Sequential(
            ComplexLinear(dim, groups), nn.ReLU(), ComplexLinear(dim, groups)
        )

    def forward(self, z: Tensor) -> Tensor:
        n, _, dim, m = z.shape
        grouped = z.reshape(n, 2, self.groups, -1).transpose(1, 2).reshape(n, 2 * dim, m, 1)
        mixed: Tensor = self.layers(grouped).reshape(n, self.groups, 2, -1)
        return mixed.transpose(1, 2).reshape(z.shape)


def _turned(taps: tuple[float, ...]) -> tuple[float, ...]:
    """Every second tap with the other sign, as seen from the middle."""
    middle = len(taps) // 2
    return tuple(t * (-1) ** (i - middle) for i, t in enumerate(taps))


def _filter(taps: tuple[float, ...], length: int) -> Tensor:
    """The matrix [length, length] of a symmetric filter, borders as in a mirror on them."""
    matrix, reach = torch.zeros(length, length), len(taps) // 2
    for row in range(length):
        for tap, at in zip(taps, range(row - reach, row + reach + 1), strict=True):
            inside = at % (2 * length)
            matrix[row, min(inside, 2 * length - 1 - inside)] += tap
    return matrix
