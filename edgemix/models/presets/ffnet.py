"""FFNet of MetaMixer."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.branches import DepthwiseBranches, NormedConv
from edgemix.models.lively import lively
from edgemix.models.metaformer import MetaFormer, Stage
from edgemix.models.mixers.ffnified_attention import FfnifiedAttention, SpatialMlp
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.stems import Mixed


def _fast_forward(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    kernel: int,
    layer_scale: float | None,
    start: int = 64,
    classes: int = 1000,
) -> nn.Module:
    """FFNet (section 3.3): norms stand behind convolutions, not in front of mixers."""
    stages = [
        Stage(
            dim, depth, partial(FfnifiedAttention, kernel=3 if i < 2 else 7),
            channel_mixer=partial(SpatialMlp, kernel=kernel),
            embedding=_merged if i else partial(_narrow_start, between=start),
            layer_scale=layer_scale,
        )
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True))
    ]  # fmt: skip
    return MetaFormer(stages, classes=classes, norm=nn.Identity, final=nn.BatchNorm2d)


def _narrow_start(channels: int, dim: int, between: int) -> nn.Module:
    first, second = NormedConv(channels, between, 3, 2), NormedConv(between, dim, 3, 2)
    return nn.Sequential(first, nn.GELU(), second)


def _merged(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(DepthwiseBranches(channels, dim, 7, 2), Mixed(dim))


def _ffnet(
    depths: tuple[int, ...], dims: tuple[int, ...], kernel: int, layer_scale: float | None,
    parameters: float, macs: float, size: int = 256,
) -> Preset:  # fmt: skip
    build = partial(_fast_forward, depths, dims, kernel, layer_scale)
    source = "Yun et al., MetaMixer Is All You Need, 2024, table 2, and its code"
    return Preset(build, (3, size, size), parameters, macs, source, folded=True)


PRESETS = {
    "ffnet_1": _ffnet((2, 2, 8, 2), (80, 160, 320, 640), 3, None, 13.7, 2.9),
    "ffnet_2": _ffnet((3, 3, 15, 3), (88, 176, 352, 704), 7, None, 26.9, 6.0),
    "ffnet_3": _ffnet((4, 4, 22, 5), (96, 192, 384, 768), 7, 1e-6, 48.3, 10.1),
    "ffnet_4": _ffnet((4, 4, 27, 3), (128, 256, 512, 1024), 7, 1e-6, 79.2, 43.1, 384),
}


def tiny() -> Factory:
    """A block in every stage, with LayerScale and the large kernels, from 8×8 positions to one."""
    build = partial(_fast_forward, (1, 1, 1, 1), (8, 8, 16, 16), 7, 1e-6, start=8, classes=10)
    return lively(build, (3, 32, 32))
