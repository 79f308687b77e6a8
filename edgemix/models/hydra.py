"""Models of Hydra layers: of text and of images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgemix.models.recurrent.hydra import Hydra


@dataclass(frozen=True)
class Layers:
    """How many, and what they are made of."""

    dim: int
    depth: int
    options: dict[str, Any] = field(default_factory=dict)
    """Of :class:`Hydra`."""

    def build(self) -> list[Hydra]:
        """Every mixer."""
        return [Hydra(self.dim, **self.options) for _ in range(self.depth)]


class HydraText(nn.Module):
    """A masked language model: Hydra layers, each in front of its norm, and a tied decoder.

    Hwang et al., "Hydra", NeurIPS 2024, section 4 and its code: BERT without positions, x ←
    norm(x + mix(x)). The words' vectors are looked up by whoever calls, as rows of ``words``; the
    same matrix reads the words off the result.

    Shape: [n, time, dim] → [n, time, vocabulary].

    Args:
        layers: of Hydra.
        vocabulary: how many words there are.
        segments: how many kinds of segments; all input is of the first.
    """

    def __init__(self, layers: Layers, *, vocabulary: int, segments: int = 2) -> None:
        super().__init__()
        dim = layers.dim
        self.words = nn.Parameter(torch.randn(vocabulary, dim) * 0.02)
        self.segments = nn.Parameter(torch.randn(segments, dim) * 0.02)
        self.norm = nn.LayerNorm(dim, eps=1e-12)
        self.mixers = nn.ModuleList(layers.build())
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in self.mixers)
        self.transform = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.LayerNorm(dim, eps=1e-12))
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.norm(x + self.segments[0])
        for mixer, norm in zip(self.mixers, self.norms, strict=True):
            x = norm(x + mixer(x))
        return nn.functional.linear(self.transform(x), self.words, self.bias)


class HydraImage(nn.Module):
    """ViT with Hydra layers: x ← x + mix(norm(x)) on patches, a classifier on their mean.

    Hwang et al., "Hydra", NeurIPS 2024, section 4: no attention, no MLP, no positions and no
    class token.

    Shape: [n, channels, h, w] → [n, classes].

    Args:
        layers: of Hydra.
        patch: side of a patch.
        channels: of the input.
        classes: of the output.
    """

    def __init__(
        self, layers: Layers, *, patch: int = 16, channels: int = 3, classes: int = 1000
    ) -> None:
        super().__init__()
        dim = layers.dim
        self.embed = nn.Conv2d(channels, dim, patch, patch)
        self.mixers = nn.ModuleList(layers.build())
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in self.mixers)
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.embed(x).flatten(2).transpose(1, 2)
        for mixer, norm in zip(self.mixers, self.norms, strict=True):
            x = x + mixer(norm(x))
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits
