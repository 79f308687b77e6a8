"""Poolings of three reaches in place of attention (PoNet)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended


class PoolingNetwork(nn.Module):
    """y = g ⊙ o + s ⊙ o + l: all positions, segments, neighbours.

    g is what the mean query finds among all keys, s the largest value of a window that o lies in,
    l the largest of 3 × 3 neighbours; o, s and l are linear maps of the input. Tan et al., "PoNet:
    Pooling Network for Efficient Token Mixing in Long Sequences", ICLR 2022, section 3, on maps in
    place of sequences.

    Shape: [n, c, h, w] → [n, c, h, w]; h and w are multiples of ``segment``.

    Raises:
        InputError: of the input, where its map does not divide.
    """

    def __init__(self, dim: int, segment: int = 2) -> None:
        super().__init__()
        self.segment = segment
        self.into = nn.Conv2d(dim, 6 * dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.shape[2] % self.segment or x.shape[3] % self.segment:
            raise InputError(
                f"a map of {x.shape[2]}×{x.shape[3]} does not divide into segments of "
                f"{self.segment}",
                do="give an image whose maps do",
            )
        query, key, value, own, segments, local = self.into(x).chunk(6, dim=1)
        mean = query.mean((2, 3))[:, None, :, None]
        far = attended(mean, key.flatten(2)[:, None], value.flatten(2)[:, None])
        far = far.reshape(*x.shape[:2], 1, 1)
        largest = nn.functional.max_pool2d(segments, self.segment)
        near = nn.functional.interpolate(largest, scale_factor=self.segment)
        mixed: Tensor = far * own + near * own + nn.functional.max_pool2d(local, 3, 1, 1)
        return mixed
