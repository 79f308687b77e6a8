"""The MetaFormer skeleton: patch embedding, stages of blocks, head.

Yu et al., "MetaFormer Baselines for Vision", TPAMI 2024. A block is

    x ← x + mix_tokens(norm(x)),    x ← x + mix_channels(norm(x))

and what tokens and channels are mixed by are arguments. Either path may be scaled channel by
channel: LayerScale behind a mixer, ResScale beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.scale import Scale

Mixer = Callable[[int], nn.Module]
"""From the number of channels to a module [n, c, h, w] → [n, c, h, w]."""
Norm = Callable[[int], nn.Module]
"""The same: a norm is what a mixer is, as far as shapes go."""
Head = Callable[[int, int], nn.Module]
"""From channels and classes to a module [n, c] → [n, classes]."""
Stem = Callable[[int, int], nn.Module]
"""From channels to channels: a module [n, c, h, w] → [n, c', h', w']."""


@dataclass(frozen=True)
class Embedding:
    """The convolution in front of a stage, which changes the map's size and width."""

    kernel: int = 3
    """An odd one overlaps."""
    stride: int = 1
    padding: int | None = None
    """None: half of the kernel."""
    bias: bool = False
    norm: Literal["before", "after"] = "after"


@dataclass(frozen=True)
class Stage:
    """One resolution of the feature map."""

    dim: int
    depth: int
    mixer: Mixer
    channel_mixer: Mixer = ChannelMlp
    embedding: Embedding | Stem = field(default_factory=Embedding)
    local: Mixer | None = None
    """On a residual path of its own in front of the others, without a norm."""
    layer_scale: float | None = None
    """Where LayerScale's factors start; None for none."""
    residual_scale: float | None = None


class Block(nn.Module):
    """Token mixer and channel mixer, each behind a norm and beside a residual path.

    Shape: [n, c, h, w] → [n, c, h, w].

    Raises:
        InputError: a mixer gives another shape than it takes.
    """

    def __init__(self, stage: Stage, norm: Norm) -> None:
        super().__init__()
        dim = stage.dim
        if stage.local is not None:
            self.local = stage.local(dim)
        self.norm1 = norm(dim)
        self.mixer = stage.mixer(dim)
        self.norm2 = norm(dim)
        self.mlp = stage.channel_mixer(dim)
        behind, beside = stage.layer_scale, stage.residual_scale
        self.behind = nn.ModuleList([] if behind is None else [Scale(dim, behind) for _ in "12"])
        self.beside = nn.ModuleList([] if beside is None else [Scale(dim, beside) for _ in "12"])

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if hasattr(self, "local"):
            x = x + self.local(x)
        for i, (norm, mixer) in enumerate(((self.norm1, self.mixer), (self.norm2, self.mlp))):
            mixed = mixer(norm(x))
            if mixed.shape != x.shape:
                raise InputError(
                    f"the {('token', 'channel')[i]} mixer {type(mixer).__name__} takes "
                    f"{list(x.shape)} and gives {list(mixed.shape)}",
                    do="a mixer of a MetaFormer keeps the shape [n, channels, height, width]",
                )
            mixed = self.behind[i](mixed) if self.behind else mixed
            x = (self.beside[i](x) if self.beside else x) + mixed
        return x


class MetaFormer(nn.Module):
    """Stages of MetaFormer blocks and a classifier on the mean over positions.

    Shape: [n, channels, h, w] → [n, classes].

    Args:
        stages: from the finest to the coarsest.
        channels: of the input.
        classes: of the output.
        norm: in front of every mixer, and where an embedding has one.
        final: a norm of the last map.
        head: of its mean over positions.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        channels: int = 3,
        classes: int = 1000,
        norm: Norm = nn.BatchNorm2d,
        final: Norm | None = None,
        head: Head = nn.Linear,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        width = channels
        for stage in stages:
            embedding = _embedding(stage, width, norm)
            blocks = [Block(stage, norm) for _ in range(stage.depth)]
            layers.append(nn.Sequential(*embedding, *blocks))
            width = stage.dim
        if final is not None:
            layers.append(final(width))
        self.stages = nn.Sequential(*layers)
        self.head = head(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.head(self.stages(x).mean(dim=(2, 3)))
        return logits


def _embedding(stage: Stage, width: int, norm: Norm) -> list[nn.Module]:
    e = stage.embedding
    if not isinstance(e, Embedding):
        return [e(width, stage.dim)]
    padding = e.kernel // 2 if e.padding is None else e.padding
    conv = nn.Conv2d(width, stage.dim, e.kernel, e.stride, padding=padding, bias=e.bias)
    if e.norm == "before":
        return [norm(width), conv]
    return [conv, norm(stage.dim)]
