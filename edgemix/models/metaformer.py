"""The MetaFormer skeleton: patch embedding, stages of blocks, head.

Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024. A block is

    x ← x + mix_tokens(norm(x)),    x ← x + mix_channels(norm(x))

and what the tokens are mixed by is an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from edgemix.models.mixers.mlp import ChannelMlp

TokenMixer = Callable[[int], nn.Module]
"""From the number of channels to a module [n, c, h, w] → [n, c, h, w]."""


@dataclass(frozen=True)
class Stage:
    """One resolution of the feature map."""

    dim: int
    depth: int
    mixer: TokenMixer
    stride: int = 1
    """By how much the embedding in front of the stage shrinks the map."""
    kernel: int = 3
    """Window of that embedding: an odd one overlaps and is padded by half of it."""
    mlp_ratio: float = 2.0


class Block(nn.Module):
    """Token mixer and channel mixer, each behind a norm and beside a residual path."""

    def __init__(
        self, dim: int, mixer: TokenMixer, mlp_ratio: float, norm: Callable[[int], nn.Module]
    ) -> None:
        super().__init__()
        self.norm1 = norm(dim)
        self.mixer = mixer(dim)
        self.norm2 = norm(dim)
        self.mlp = ChannelMlp(dim, mlp_ratio)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x + self.mixer(self.norm1(x))
        result: Tensor = x + self.mlp(self.norm2(x))
        return result


class MetaFormer(nn.Module):
    """Stages of MetaFormer blocks and a linear classifier on the mean over positions.

    Shape: [n, channels, h, w] → [n, classes].
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        channels: int = 3,
        classes: int = 1000,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for stage in stages:
            embed = nn.Conv2d(
                width, stage.dim, stage.kernel, stage.stride, padding=stage.kernel // 2, bias=False
            )
            blocks = [
                Block(stage.dim, stage.mixer, stage.mlp_ratio, norm) for _ in range(stage.depth)
            ]
            layers.append(nn.Sequential(embed, norm(stage.dim), *blocks))
            width = stage.dim
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.head(self.stages(x).mean(dim=(2, 3)))
        return logits
