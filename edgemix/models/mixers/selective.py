"""Selective mixers of maps: gated selective scans along rows, along channels, and four ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.recurrent.selective_scan import SelectiveScan

Way = Literal["forward", "backward"]
BOTH: tuple[Way, ...] = ("forward", "backward")


class RowScan(nn.Module):
    """silu of a causal depthwise convolution, then a selective scan, from left to right.

    Shape: [n, c, h, w] → [n, c, h, w]; every row is a sequence of w steps.
    """

    def __init__(self, dim: int, *, states: int, kernel: int, rank: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel - 1), groups=dim)
        self.scan = SelectiveScan(dim, states=states, rank=rank)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        seen = self.conv(x)[..., : x.shape[3]]  # the columns behind it see what is later
        x = functional.silu(seen)
        y: Tensor = self.scan(x.permute(0, 2, 3, 1))
        return y.permute(0, 3, 1, 2)


class RowScans(nn.Module):
    """The sum of a :class:`RowScan` for every way; backward is forward of the row turned round.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(
        self, dim: int, ways: Sequence[Way], *, states: int, kernel: int, rank: int
    ) -> None:
        super().__init__()
        self.ways = tuple(ways)
        self.scans = nn.ModuleList(
            RowScan(dim, states=states, kernel=kernel, rank=rank) for _ in self.ways
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        parts: list[Tensor] = [
            scan(x) if way == "forward" else scan(x.flip(3)).flip(3)
            for way, scan in zip(self.ways, self.scans, strict=True)
        ]
        return sum(parts[1:], parts[0])


class SelectiveRows(nn.Module):
    """Selective mixing along the rows of a map.

    Behrouz et al., "MambaMixer", 2024, section 3.2: along time and forward it is the selective
    token mixer of a sequence, which is Mamba's block; along channels and both ways, the selective
    channel mixer:

        y = W_o ((scan(silu(conv(W x))) + flip(scan(silu(conv(flip(W x)))))) · silu(W_z x))

    Shape: [n, c, h, w] → [n, c, h, w]; every row is a sequence of w vectors of c features.
    """

    def __init__(
        self, dim: int, *, ways: Sequence[Way] = ("forward",), expand: int = 2, states: int = 16,
        kernel: int = 4, rank: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = expand * dim
        self.enter = nn.Conv2d(dim, 2 * inner, 1, bias=False)
        self.scans = RowScans(
            inner, ways, states=states, kernel=kernel, rank=rank or max(1, dim // 16)
        )
        self.leave = nn.Conv2d(inner, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, z = self.enter(x).chunk(2, 1)
        y: Tensor = self.leave(self.scans(x) * functional.silu(z))
        return y


class SelectiveColumns(SelectiveRows):
    """:class:`SelectiveRows` along columns, from top to bottom.

    Shape: [n, c, h, w] → [n, c, h, w]; every column is a sequence of h vectors of c features.
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return super().forward(x.transpose(2, 3)).transpose(2, 3)


class SelectiveTokens(nn.Module):
    """The selective token mixer of images: a depthwise convolution, then four selective scans.

    Behrouz et al., "MambaMixer", 2024, section 4.1, with the cross-scan of Liu et al., "VMamba",
    2024: row by row and column by column, each forth and back, every way with
    parameters of its own; their sum is gated:

        y = W_o (Σ scan(silu(dwconv(W x))) · silu(W_z x))

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(
        self, dim: int, *, expand: int = 2, states: int = 16, kernel: int = 3,
        rank: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        inner = expand * dim
        self.enter = nn.Conv2d(dim, 2 * inner, 1, bias=False)
        self.conv = nn.Conv2d(inner, inner, kernel, padding=kernel // 2, groups=inner)
        self.scans = nn.ModuleList(
            SelectiveScan(inner, states=states, rank=rank or max(1, dim // 16)) for _ in range(4)
        )
        self.leave = nn.Conv2d(inner, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, z = self.enter(x).chunk(2, 1)
        x = functional.silu(self.conv(x))
        across, down = (self._forth_and_back(v, i) for i, v in enumerate((x, x.transpose(2, 3))))
        y: Tensor = self.leave((across + down.transpose(2, 3)) * functional.silu(z))
        return y

    def _forth_and_back(self, x: Tensor, axis: int) -> Tensor:
        forth, back = self.scans[2 * axis], self.scans[2 * axis + 1]
        tokens = x.flatten(2).transpose(1, 2)
        mixed: Tensor = forth(tokens) + back(tokens.flip(1)).flip(1)
        return mixed.transpose(1, 2).reshape(x.shape)


class SelectiveChannels(nn.Module):
    """The selective channel mixer of images: at every position, scans over the channels both ways.

    Behrouz et al., "MambaMixer", 2024, sections 3.2 and 4.1 and table 8 ("CW-Linear, CW-S6,
    CW-Linear"). The paper does not say what a step of its scan over channels holds. Here it is the
    channel's value, one number, with parameters that all positions share: maps over positions
    would have 29 million of them in the first stage alone, more than the whole of ViM2-T. For such
    a scan the four orders of the positions are one; what is left of them are the two of the
    channels.

    Shape: [n, c, h, w] → [n, c, h, w].

    Args:
        dim: channels of the map.
        width: channels that are scanned; None for 2 ``dim``.
        states: of the scan.
        kernel: of the convolution over channels.
    """

    def __init__(
        self, dim: int, *, width: int | None = None, states: int = 16, kernel: int = 4
    ) -> None:
        super().__init__()
        self.width = width or 2 * dim
        self.enter = nn.Conv2d(dim, 2 * self.width, 1, bias=False)
        self.scans = RowScans(1, BOTH, states=states, kernel=kernel, rank=1)
        self.leave = nn.Conv2d(self.width, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x, z = self.enter(x).chunk(2, 1)
        mixed: Tensor = self.scans(x.flatten(2).transpose(1, 2)[:, None])
        y: Tensor = self.leave(mixed[:, 0].transpose(1, 2).reshape(x.shape) * functional.silu(z))
        return y
