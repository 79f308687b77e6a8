"""A reference model for pruning that those for quantization lack: attention over many tokens.

``edgemix deploy tests.benchmarks.prune.models:vit`` takes it. Its weights lie beside this file and
were made by ``python -m tests.benchmarks.prune.train``.
"""

from __future__ import annotations

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

Factory = tuple[nn.Module, tuple[Tensor, ...]]
WEIGHTS = Path(__file__).with_name("weights")


class _Block(nn.Module):
    """Softmax attention over all tokens, then a perceptron, each behind a LayerNorm."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.expand, self.reduce = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.proj(mixed.transpose(1, 2).reshape(n, t, c))
        return x + self.reduce(nn.functional.gelu(self.expand(self.norm2(x))))


class ViT(nn.Module):
    """Dosovitskiy et al., "An Image is Worth 16×16 Words", ICLR 2021: [n, 1, 32, 32] → [n, 10].

    Patches of 4×4 give 64 tokens; a class token goes in front of them.
    """

    def __init__(self, dim: int = 64, depth: int = 6, heads: int = 4, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, dim, 4, 4)
        self.token = nn.Parameter(0.02 * torch.randn(1, 1, dim))
        self.places = nn.Parameter(0.02 * torch.randn(1, 65, dim))
        self.blocks = nn.Sequential(*(_Block(dim, heads) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.places
        logits: Tensor = self.head(self.norm(self.blocks(x))[:, 0])
        return logits


def vit() -> Factory:
    """ViT on digits: [1, 1, 32, 32]; its weights are stored in 16 bits."""
    model = ViT()
    stored = safetensors.torch.load_file(WEIGHTS / "vit.safetensors")
    model.load_state_dict({key: value.float() for key, value in stored.items()})
    return model.eval(), (torch.zeros(1, 1, 32, 32),)
