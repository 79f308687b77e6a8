"""Convolutions with batch norms that are trained beside each other and become one afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from torch import Tensor, nn

from edgemix.errors import InputError


class NormedConv(nn.Sequential):
    """A convolution without bias and a batch norm behind it.

    Shape: [n, c, h, w] → [n, dim, h / stride, w / stride].
    """

    def __init__(
        self, channels: int, dim: int, kernel: int = 1, stride: int = 1, groups: int = 1
    ) -> None:
        super().__init__(
            nn.Conv2d(
                channels, dim, kernel, stride, padding=kernel // 2, groups=groups, bias=False
            ),
            nn.BatchNorm2d(dim),
        )


class DepthwiseBranches(nn.Module):
    """y = BN(K ∗ x) + BN(k ∗ x): a large depthwise kernel and a small one of half its size.

    Ding et al., "Scaling Up Your Kernels to 31x31", CVPR 2022, section 3.

    Shape: [n, c, h, w] → [n, dim, h / stride, w / stride], ``dim`` a multiple of c.

    Raises:
        InputError: one of the kernels has no middle.
    """

    def __init__(self, channels: int, dim: int, kernel: int = 7, stride: int = 1) -> None:
        super().__init__()
        if kernel % 2 == 0 or kernel // 2 % 2 == 0:
            raise InputError(
                f"a kernel of {kernel} or its half of {kernel // 2} has no middle",
                do="choose 3, 7, 11 or another with an odd half",
            )
        self.large = NormedConv(channels, dim, kernel, stride, channels)
        self.small = NormedConv(channels, dim, kernel // 2, stride, channels)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.large(x) + self.small(x))


class GroupedBranches(nn.Module):
    """y = Σ BN(W_g x): 1×1 convolutions side by side, each in another number of groups.

    The convolutional multi-group reparameterization (gMLP) of Tan et al., "FMViT", 2023. One of a
    single group holds all others afterwards.

    Shape: [n, c, h, w] → [n, dim, h, w].

    Raises:
        InputError: channels do not divide into groups, or none of the branches holds the others.
    """

    def __init__(self, channels: int, dim: int, groups: Sequence[int] = (1, 2)) -> None:
        super().__init__()
        if 1 not in groups or any(channels % g or dim % g for g in groups):
            raise InputError(
                f"{channels} and {dim} channels in {list(groups)} groups",
                do="take one group, and others that divide both numbers of channels",
            )
        self.branches = nn.ModuleList(NormedConv(channels, dim, groups=g) for g in groups)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        first, *others = self.branches
        y: Tensor = first(x)
        for branch in others:
            y = y + branch(x)
        return y
