"""The mean over all positions as token mixer."""

from __future__ import annotations

from torch import Tensor, nn


class GlobalPooling(nn.Module):
    """y = mean(x) − x: :class:`~edgemix.models.mixers.pooling.Pooling` with one window for all.

    It suits sets, whose positions have no neighbours: the result follows any permutation.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x.mean(dim=(2, 3), keepdim=True) - x
