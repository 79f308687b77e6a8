"""What a data set is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix.errors import InputError

SPLITS = ("train", "heldout")


@dataclass(frozen=True)
class Data:
    """Samples [n, ...] and, if known, their labels [n]."""

    source: str
    samples: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.samples)

    def batches(self, size: int, limit: int | None = None) -> Iterator[Tensor]:
        """Batches of at most ``size`` samples, copied one at a time."""
        end = len(self) if limit is None else min(limit, len(self))
        for start in range(0, end, size):
            yield torch.from_numpy(np.array(self.samples[start : min(start + size, end)]))

    def tensor(self) -> Tensor:
        """All samples at once, copied: files are mapped and sets are shared, both read-only."""
        return torch.from_numpy(np.array(self.samples))

    def head(self, count: int) -> Data:
        """The first ``count`` samples."""
        labels = None if self.labels is None else self.labels[:count]
        return Data(self.source, self.samples[:count], labels)


def check_split(name: str, split: str) -> None:
    """Refuse a part that the data set ``name`` does not have.

    Raises:
        InputError: ``split`` is neither ``train`` nor ``heldout``.
    """
    if split not in SPLITS:
        ways = " or ".join(f"{name}:{s}" for s in SPLITS)
        raise InputError(f"there is no {name}:{split}", do=f"use {ways}")
