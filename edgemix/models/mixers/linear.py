"""A learned matrix over the positions as token mixer."""

from __future__ import annotations

from torch import Tensor, nn


class Linear(nn.Module):
    """y = W x + b over the positions, the same for every channel.

    Tolstikhin et al., "MLP-Mixer", 2021, with one layer; for jets, "JEDI-linear" (arXiv 2508.15468)
    finds that interactions of linear cost are enough.

    Shape: [n, c, h, w] → [n, c, h, w] with h·w = ``positions``.
    """

    def __init__(self, dim: int, positions: int) -> None:
        super().__init__()
        self.mix = nn.Linear(positions, positions)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = self.mix(x.flatten(2))
        return mixed.reshape(x.shape)
