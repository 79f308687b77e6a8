"""Groups of channels that look about and are shifted by different lengths (MS-MLP)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgemix.errors import InputError


class MixShift(nn.Module):
    """y = W [shift_i(K_i ∗ x_i)]: group i has a kernel and a shift of its own.

    A shift goes along the rows in one half of the group and along the columns in the other, around
    the border. Zheng et al., "Mixing and Shifting: Exploiting Global and Local Dependencies in
    Vision MLPs", 2022, section 3.

    Shape: [n, c, h, w] → [n, c, h, w].

    Args:
        dim: c.
        shifts: of the groups, in positions; a group's kernel reaches as far.

    Raises:
        InputError: the channels do not divide into two halves of every group.
    """

    def __init__(self, dim: int, shifts: Sequence[int] = (0, 1, 2)) -> None:
        super().__init__()
        if dim % (2 * len(shifts)):
            raise InputError(f"{dim} channels do not divide into halves of {len(shifts)} groups")
        self.shifts = tuple(shifts)
        own = dim // len(shifts)
        self.look = nn.ModuleList(
            nn.Conv2d(own, own, 2 * s + 1, padding=s, groups=own) for s in shifts
        )
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        parts = []
        groups = x.chunk(len(self.shifts), dim=1)
        for group, look, shift in zip(groups, self.look, self.shifts, strict=True):
            rows, columns = look(group).chunk(2, dim=1)
            parts += [rows.roll(shift, 3), columns.roll(shift, 2)]
        result: Tensor = self.proj(torch.cat(parts, dim=1))
        return result
