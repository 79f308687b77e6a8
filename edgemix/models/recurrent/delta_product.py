"""DeltaProduct: several writes by the delta rule at every step."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.recurrent.linear_attention import DeltaNet, unit


class DeltaProduct(DeltaNet):
    """S ← S + β_j k_j (v_j − k_jᵀ S)ᵀ for j = 1 … n, then y = q S; β_j = peak · sigmoid(W_j x).

    Siems et al., "DeltaProduct: Improving State-Tracking in Linear RNNs via Householder Products",
    2025. Over a step the memory is multiplied by ∏ (I − β_j k_j k_jᵀ), a product of n generalized
    Householder matrices, where DeltaNet has one. Each has one eigenvalue 1 − β_j, the others are 1.

    Shape: [batch, time, dim] → [batch, time, dim].

    Args:
        dim: features.
        heads: memories.
        writes: n, of them a step.
        peak: of β; 1 keeps eigenvalues in [0, 1], 2 lets them reach −1, which is a reflection.
    """

    def __init__(self, dim: int, heads: int = 2, writes: int = 2, peak: float = 2.0) -> None:
        super().__init__(dim, heads)
        self.writes, self.peak = writes, peak
        self.qkv = nn.Linear(dim, (1 + 2 * writes) * dim, bias=False)
        self.rate = nn.Linear(dim, writes * heads)

    def _unit(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Q [batch, ..., heads, size]; k, v and β with an axis of writes before their heads."""
        parts = [self._in_heads(p) for p in self.qkv(x).chunk(1 + 2 * self.writes, -1)]
        keys = [unit(functional.silu(k)) for k in parts[1 : 1 + self.writes]]
        values = parts[1 + self.writes :]
        beta = self.peak * torch.sigmoid(self.rate(x))
        rates = torch.stack(beta.chunk(self.writes, -1), -2)
        return (
            unit(functional.silu(parts[0])),
            torch.stack(keys, -3),
            torch.stack(values, -3),
            rates,
        )

    def _written(self, memory: Tensor, k: Tensor, v: Tensor, beta: Tensor) -> Tensor:
        for j in range(self.writes):
            memory = super()._written(memory, k[:, j], v[:, j], beta[:, j])
        return memory
