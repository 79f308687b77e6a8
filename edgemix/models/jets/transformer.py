"""A small transformer encoder on sets of particles."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_heads


class TokenAttention(nn.Module):
    """softmax(q kᵀ / √d) v with h heads (Vaswani et al., 2017, equation 1).

    Shape: [n, t, c] → [n, t, c].

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, t, c = x.shape
        parts = self.qkv(x).reshape(n, t, 3, self.heads, c // self.heads).unbind(2)
        q, k, v = (part.transpose(1, 2) for part in parts)
        weights = torch.softmax(torch.matmul(q, k.transpose(-2, -1)) * self.scale, dim=-1)
        mixed = torch.matmul(weights, v).transpose(1, 2)
        result: Tensor = self.proj(mixed.reshape(n, t, c))
        return result


class Encoder(nn.Module):
    """Attention, then a perceptron at every token, each behind a LayerNorm and beside a residual.

    Shape: [n, t, c] → [n, t, c].
    """

    def __init__(self, dim: int, heads: int, ratio: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = TokenAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = _perceptron(dim, ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class Transformer(nn.Module):
    """Embedding by a perceptron, encoder blocks, mean over the tokens, linear classifier.

    There is no position embedding: a jet is a set. With a perceptron in front of it, one block is
    worth as much as two behind a linear embedding: attention is linear in its values.

    Shape: [n, t, inputs] → [n, classes].
    """

    def __init__(
        self, *, dim: int, depth: int, heads: int = 2, ratio: int = 2, inputs: int = 3, classes: int
    ) -> None:
        super().__init__()
        self.embed = _perceptron(inputs, ratio * dim, dim)
        self.blocks = nn.Sequential(*(Encoder(dim, heads, ratio) for _ in range(depth)))
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.head(self.blocks(self.embed(x)).mean(dim=1))
        return logits


def _perceptron(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, outputs))
