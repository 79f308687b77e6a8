"""LSTMs along rows and along columns, in both directions, as token mixer (Sequencer2D)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Lstm2d(nn.Module):
    """y = W [BiLSTM over columns, BiLSTM over rows].

    Tatsunami and Taki, "Sequencer: Deep LSTM for Image Classification", NeurIPS 2022, section 3.3.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, dim: int, hidden: int | None = None) -> None:
        super().__init__()
        hidden = max(dim // 4, 1) if hidden is None else hidden
        self.down = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
        self.across = nn.LSTM(dim, hidden, batch_first=True, bidirectional=True)
        self.proj = nn.Conv2d(4 * hidden, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, c, h, w = x.shape
        columns, _ = self.down(x.permute(0, 3, 2, 1).reshape(n * w, h, c))
        rows, _ = self.across(x.permute(0, 2, 3, 1).reshape(n * h, w, c))
        columns = columns.reshape(n, w, h, -1).permute(0, 3, 2, 1)
        rows = rows.reshape(n, h, w, -1).permute(0, 3, 1, 2)
        result: Tensor = self.proj(torch.cat([columns, rows], dim=1))
        return result
