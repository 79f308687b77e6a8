"""Mixers in the frequency domain: nothing learned, a learned filter, a filter made of the input."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models.sizes import check_size


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

    Raises:
        InputError: of the input, where its size is another.
    """

    def __init__(self, dim: int, height: int, width: int) -> None:
        super().__init__()
        self.size = (height, width)
        self.filter = nn.Parameter(torch.randn(dim, height, width // 2 + 1, 2) * 0.02)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        found = torch.fft.rfft2(x, norm="ortho") * torch.view_as_complex(self.filter)
        mixed: Tensor = torch.fft.irfft2(found, s=self.size, norm="ortho")
        return mixed


class AdaptiveFilter(nn.Module):
    """y = F⁻¹(S(M(F(x))) ⊙ F(x)), M a complex perceptron on the channels of each frequency.

    Huang et al., "Adaptive Frequency Filters As Efficient Global Token Mixers", ICCV 2023,
    equation 5 (AFFNet). M is two linear maps in groups of channels with a ReLU of real and
    imaginary parts between them; S, which the published code has and the equation leaves out,
    moves both parts of the mask towards zero by a threshold.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Args:
        dim: c.
        height: of the map.
        width: of the map.
        groups: of channels in M; 8 as published.
        threshold: of S, where parts of the mask are zero; 0.01 as published.

    Raises:
        InputError: ``dim`` is no multiple of ``groups``; of the input, where its map is another.
    """

    def __init__(
        self, dim: int, height: int, width: int, groups: int = 2, threshold: float = 0.01
    ) -> None:
        super().__init__()
        if dim % groups:
            raise InputError(f"{dim} channels do not divide into {groups} groups")
        self.size, self.threshold, self.groups = (height, width), threshold, groups
        self.mask = nn.Sequential(ComplexLinear(dim, groups), nn.ReLU(), ComplexLinear(dim, groups))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        found = torch.fft.rfft2(x, norm="ortho")
        n, _, h, w = found.shape
        parts = (n, self.groups, -1, h, w)
        pair = torch.cat([found.real.reshape(parts), found.imag.reshape(parts)], dim=2)
        mask = self.mask(pair.reshape(n, -1, h, w))
        mask = mask - mask.clamp(-self.threshold, self.threshold)
        real, imaginary = (m.reshape(found.shape) for m in mask.reshape(parts).chunk(2, dim=2))
        found = found * torch.complex(real, imaginary)
        mixed: Tensor = torch.fft.irfft2(found, s=self.size, norm="ortho")
        return mixed


class ComplexLinear(nn.Module):
    """W x + b of complex numbers in groups of channels, as one real map.

    Each group has its real parts in front of its imaginary ones, and the map

        [real W, −imaginary W]
        [imaginary W, real W].

    Shape: [n, 2 dim, h, w] → the same.
    """

    def __init__(self, dim: int, groups: int) -> None:
        super().__init__()
        size = dim // groups
        self.groups = groups
        self.weight = nn.Parameter(torch.randn(2, groups, size, size) * (2 * size) ** -0.5)
        self.bias = nn.Parameter(torch.zeros(groups, 2, size))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        real, imaginary = self.weight[0], self.weight[1]
        first = torch.cat([real, -imaginary], dim=2)
        second = torch.cat([imaginary, real], dim=2)
        kernel = torch.cat([first, second], dim=1).flatten(0, 1)[:, :, None, None]
        return functional.conv2d(x, kernel, self.bias.flatten(), groups=self.groups)
