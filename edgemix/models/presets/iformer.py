"""iFormer, the Inception Transformer."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.lively import lively
from edgemix.models.metaformer import MetaFormer, Stage
from edgemix.models.mixers.inception import Inception
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.norm import ChannelNorm
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.stems import Positions, two_convolutions

Plan = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""For every stage its channels, and its blocks in parts: how many, and their heads."""


def _inception(plan: Plan, size: int = 224, head_dim: int = 32, classes: int = 1000) -> nn.Module:
    """IFormer (table 1): the later the stage, the more heads of attention."""
    stages = [
        Stage(
            dim, depth, partial(Inception, heads=heads, head_dim=head_dim, pool=2 if i < 2 else 1),
            channel_mixer=partial(ChannelMlp, ratio=4.0, activation=nn.GELU),
            embedding=partial(_placed, size=size >> i + 2) if j == 0 else nn.Identity,
            layer_scale=1e-6 if i >= 2 else None,
        )
        for i, (dim, parts) in enumerate(plan)
        for j, (depth, heads) in enumerate(parts)
    ]  # fmt: skip
    return MetaFormer(stages, classes=classes, norm=ChannelNorm, final=ChannelNorm)


def _placed(channels: int, dim: int, size: int) -> nn.Module:
    if channels == 3:
        stem: nn.Module = two_convolutions(channels, dim, nn.GELU, last=False)
    else:
        stem = nn.Sequential(nn.Conv2d(channels, dim, 3, 2, 1), nn.BatchNorm2d(dim))
    return nn.Sequential(stem, Positions(dim, size))


def _iformer(plan: Plan, parameters: float, macs: float) -> Preset:
    source = "Si et al., Inception Transformer, NeurIPS 2022, and its code"
    return Preset(partial(_inception, plan), (3, 224, 224), parameters, macs, source)


PRESETS = {
    "iformer_small": _iformer(
        ((96, ((3, 1),)), (192, ((3, 3),)), (320, ((4, 7), (5, 9))), (384, ((3, 11),))),
        19.866,
        4.849,
    ),
    "iformer_base": _iformer(
        ((96, ((4, 1),)), (192, ((6, 3),)), (384, ((7, 8), (7, 10))), (512, ((6, 15),))),
        47.866,
        9.379,
    ),
    "iformer_large": _iformer(
        ((96, ((4, 1),)), (192, ((6, 3),)), (448, ((9, 10), (9, 12))), (640, ((8, 19),))),
        86.637,
        14.048,
    ),
}


def tiny() -> Factory:
    """A block in every stage, from 8×8 positions, pooled for attention as published, to one."""
    plan = ((8, ((1, 1),)), (8, ((1, 1),)), (12, ((1, 2),)), (16, ((1, 3),)))
    return lively(partial(_inception, plan, 32, 4, 10), (3, 32, 32))
