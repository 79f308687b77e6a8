"""Mixers in the frequency domain: nothing learned, a learned filter, a filter made of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.errors import InputError


class Fourier(nn.Module):
    """y = Re F(x) over channels and positions, nothing learned.

    Lee-Thorp et al., "FNet: Mixing Tokens with Fourier Transforms", NAACL 2022, equation 3, its two
    transforms over the positions' sequence and the channels; here the positions have two axes.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = torch.fft.fftn(x, dim=(1, 2, 3), norm="ortho").real
        return mixed


class GlobalFilter(nn.Module):
    """y = F⁻¹(K ⊙ F(x)), one learned complex K for every channel and frequency.

    Rao et al., "Global Filter Networks for Image Classification", NeurIPS 2021, equation 7.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.
    """

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.filter = nn.Parameter(torch.randn(dim, height, width // 2 + 1, 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        found = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        mixed: Tensor = torch.fft.irfft2(found, s=self.size, norm="ortho")
        return mixed


class AdaptiveFilter(nn.Module):
    """y = F⁻¹(M(F(x)) ⊙ F(x)), M a perceptron on the real and imaginary parts at each frequency.

    Huang et al., "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023,
    equation 5 (AFFNet).

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Raises:
        InputError: ``dim`` is no multiple of ``groups``.
    """

    def __init__(self, dim: int, height: int, width: int, groups: int = 2) -> None:
        super().__init__()
        if dim % groups:
            raise InputError(f"{dim} channels do not divide into {groups} groups")
        self.size = (height, width)
        self.mask = nn.Sequential(
            nn.Conv2d(2 * dim, 2 * dim, 1, groups=groups),
            nn.ReLU(),
            nn.Conv2d(2 * dim, 2 * dim, 1, groups=groups),
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        found = torch.fft.rfft2(x, norm="ortho")
        real, imaginary = self.mask(torch.cat([found.real, found.imag], dim=1)).chunk(2, dim=1)
        found = found * torch.complex(real, imaginary)
        mixed: Tensor = torch.fft.irfft2(found, s=self.size, norm="ortho")
        return mixed
