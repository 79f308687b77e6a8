"""The MLP of TSMixer and the gate behind or in front of it."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional


class GatedAttention(nn.Module):
    """y = x · softmax(W x + b): one weight for each feature, and they sum to one.

    Ekambaram et al., "TSMixer", KDD 2023, section 3.2.2, "Gated attention block".

    Shape: [..., features] → the same.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self.score = nn.Linear(features, features)

    def weights(self, x: Tensor) -> Tensor:
        """What x is multiplied by."""
        return torch.softmax(self.score(x), -1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x * self.weights(x)


class Mlp(nn.Module):
    """y = W₂ gelu(W₁ x + b₁) + b₂.

    Shape: [..., features] → the same.
    """

    def __init__(self, features: int, expansion: int = 2) -> None:
        super().__init__()
        self.widen = nn.Linear(features, expansion * features)
        self.narrow = nn.Linear(expansion * features, features)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.narrow(functional.gelu(self.widen(x))))
