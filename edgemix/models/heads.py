"""Classifiers on the mean over a map's positions."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn


class NormedHead(nn.Module):
    """y = W norm(x) + b, as the MetaFormer baselines have it.

    Shape: [n, c] → [n, classes].
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.linear = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.linear(self.norm(x)))


class DistilledHead(nn.Module):
    """The mean of two classifiers, one of which learned from a teacher.

    Touvron et al., "Training data-efficient image transformers", ICML 2021, section 4.

    Shape: [n, c] → [n, classes].
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.labels = nn.Linear(width, classes)
        self.teacher = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, (self.labels(x) + self.teacher(x)) / 2)
