"""Batch normalization of the last axis, for sequences and for single steps alike."""

from __future__ import annotations

from torch import Tensor, nn


class FeatureNorm(nn.BatchNorm1d):
    """Statistics per feature over all other axes; folds into the linear map before it.

    Shape: [..., features] → [..., features].
    """

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.ndim == 2:
            return super().forward(x)
        return super().forward(x.flatten(0, -2)).reshape(x.shape)
