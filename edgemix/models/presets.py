"""Published models by name, at their published sizes.

``edgemix deploy edgemix.models.presets:identityformer_s12`` takes any of them with weights as they
are drawn: for size, latency and what a target takes. What timm has is timm's: ``timm:NAME``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from edgemix.models.activations import StarReLU
from edgemix.models.branches import DepthwiseBranches, NormedConv
from edgemix.models.heads import DistilledHead, NormedHead
from edgemix.models.metaformer import Embedding, MetaFormer, Mixer, Stage
from edgemix.models.mixers.additive_attention import AdditiveAttention
from edgemix.models.mixers.ffnified_attention import FfnifiedAttention, SpatialMlp
from edgemix.models.mixers.inception import Inception
from edgemix.models.mixers.local_perception import LocalPerception
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.mixers.random_matrix import RandomMatrix
from edgemix.models.norm import ChannelNorm, MapNorm
from edgemix.models.stems import Mixed, Positions, two_convolutions

Factory = tuple[nn.Module, tuple[Tensor, ...]]
Plan = tuple[tuple[int, tuple[tuple[int, int], ...]], ...]
"""For every stage its channels, and its blocks in parts: how many, and their heads."""


@dataclass(frozen=True)
class Preset:
    """A published model: how it is built, and what its authors say of its size."""

    build: Callable[[], nn.Module]
    input: tuple[int, ...]
    """Of one sample: [channels, height, width]."""
    parameters: float
    """Learned ones in millions, as published."""
    macs: float
    """In billions, as published."""
    source: str
    frozen: float = 0.0
    """Those that are drawn and never learned, in millions."""
    folded: bool = False
    """Whether they are counted after norms and branches became one convolution."""


def _baseline(
    depths: tuple[int, ...], dims: tuple[int, ...], mixers: tuple[Mixer, ...]
) -> nn.Module:
    """The skeleton of the MetaFormer baselines (TPAMI 2024, section 3 and table 1)."""
    stages = [
        Stage(
            dim, depth, mixer,
            channel_mixer=partial(ChannelMlp, ratio=4.0, activation=StarReLU, bias=False),
            embedding=_STEM if i == 0 else _SHRINK,
            residual_scale=1.0 if i >= 2 else None,
        )
        for i, (dim, depth, mixer) in enumerate(zip(dims, depths, mixers, strict=True))
    ]  # fmt: skip
    return MetaFormer(stages, norm=partial(MapNorm, bias=False), head=NormedHead)


_STEM = Embedding(kernel=7, stride=4, padding=2, bias=True)
_SHRINK = Embedding(kernel=3, stride=2, bias=True, norm="before")


_IDENTITY: tuple[Mixer, ...] = (nn.Identity,) * 4
_RANDOM: tuple[Mixer, ...] = (
    nn.Identity, nn.Identity,
    partial(RandomMatrix, positions=196), partial(RandomMatrix, positions=49),
)  # fmt: skip
_SMALL, _MEDIUM = (64, 128, 320, 512), (96, 192, 384, 768)
_SIZES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "s12": ((2, 2, 6, 2), _SMALL),
    "s24": ((4, 4, 12, 4), _SMALL),
    "s36": ((6, 6, 18, 6), _SMALL),
    "m36": ((6, 6, 18, 6), _MEDIUM),
    "m48": ((8, 8, 24, 8), _MEDIUM),
}
_BASELINES = "Yu et al., MetaFormer Baselines for Vision, TPAMI 2024, table 2"


def _of(
    kind: tuple[Mixer, ...], size: str, parameters: float, macs: float, frozen: float = 0.0
) -> Preset:
    depths, dims = _SIZES[size]
    build = partial(_baseline, depths, dims, kind)
    return Preset(build, (3, 224, 224), parameters, macs, _BASELINES, frozen)


def _cas_vit(depths: tuple[int, ...], dims: tuple[int, ...]) -> nn.Module:
    """The published plan (section 3.4)."""
    stages = [
        Stage(
            dim, depth, AdditiveAttention,
            channel_mixer=partial(ChannelMlp, ratio=4.0, activation=nn.GELU),
            embedding=two_convolutions if i == 0 else Embedding(stride=2, bias=True),
            local=LocalPerception,
        )
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True))
    ]  # fmt: skip
    return MetaFormer(stages, final=nn.BatchNorm2d, head=DistilledHead)


def _cas(depths: tuple[int, ...], dims: tuple[int, ...], parameters: float, macs: float) -> Preset:
    build = partial(_cas_vit, depths, dims)
    return Preset(build, (3, 224, 224), parameters, macs, _CAS_VIT)


def _inception(plan: Plan) -> nn.Module:
    """IFormer (table 1): the later the stage, the more heads of attention."""
    stages = [
        Stage(
            dim, depth, partial(Inception, heads=heads, pool=2 if i < 2 else 1),
            channel_mixer=partial(ChannelMlp, ratio=4.0, activation=nn.GELU),
            embedding=partial(_placed, size=56 >> i) if j == 0 else nn.Identity,
            layer_scale=1e-6 if i >= 2 else None,
        )
        for i, (dim, parts) in enumerate(plan)
        for j, (depth, heads) in enumerate(parts)
    ]  # fmt: skip
    return MetaFormer(stages, norm=ChannelNorm, final=ChannelNorm)


def _placed(channels: int, dim: int, size: int) -> nn.Module:
    if channels == 3:
        stem: nn.Module = two_convolutions(channels, dim, nn.GELU, last=False)
    else:
        stem = nn.Sequential(nn.Conv2d(channels, dim, 3, 2, 1), nn.BatchNorm2d(dim))
    return nn.Sequential(stem, Positions(dim, size))


def _iformer(plan: Plan, parameters: float, macs: float) -> Preset:
    source = "Si et al., Inception Transformer, NeurIPS 2022, and its code"
    return Preset(partial(_inception, plan), (3, 224, 224), parameters, macs, source)


def _fast_forward(
    depths: tuple[int, ...], dims: tuple[int, ...], kernel: int, layer_scale: float | None
) -> nn.Module:
    """FFNet (section 3.3): norms stand behind convolutions, not in front of mixers."""
    stages = [
        Stage(
            dim, depth, partial(FfnifiedAttention, kernel=3 if i < 2 else 7),
            channel_mixer=partial(SpatialMlp, kernel=kernel),
            embedding=_merged if i else _narrow_start, layer_scale=layer_scale,
        )
        for i, (dim, depth) in enumerate(zip(dims, depths, strict=True))
    ]  # fmt: skip
    return MetaFormer(stages, norm=nn.Identity, final=nn.BatchNorm2d)


def _narrow_start(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(NormedConv(channels, 64, 3, 2), nn.GELU(), NormedConv(64, dim, 3, 2))


def _merged(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(DepthwiseBranches(channels, dim, 7, 2), Mixed(dim))


def _ffnet(
    depths: tuple[int, ...], dims: tuple[int, ...], kernel: int, layer_scale: float | None,
    parameters: float, macs: float, size: int = 256,
) -> Preset:  # fmt: skip
    build = partial(_fast_forward, depths, dims, kernel, layer_scale)
    source = "Yun et al., MetaMixer Is All You Need, 2024, table 2, and its code"
    return Preset(build, (3, size, size), parameters, macs, source, folded=True)


_CAS_VIT = "Zhang et al., CAS-ViT, 2024, table 1"

PRESETS: dict[str, Preset] = {
    "identityformer_s12": _of(_IDENTITY, "s12", 11.9, 1.8),
    "identityformer_s24": _of(_IDENTITY, "s24", 21.3, 3.4),
    "identityformer_s36": _of(_IDENTITY, "s36", 30.8, 5.0),
    "identityformer_m36": _of(_IDENTITY, "m36", 56.1, 8.8),
    "identityformer_m48": _of(_IDENTITY, "m48", 73.3, 11.5),
    "randformer_s12": _of(_RANDOM, "s12", 11.9, 1.9, 0.2),
    "randformer_s24": _of(_RANDOM, "s24", 21.3, 3.5, 0.5),
    "randformer_s36": _of(_RANDOM, "s36", 30.8, 5.2, 0.7),
    "randformer_m36": _of(_RANDOM, "m36", 56.1, 9.0, 0.7),
    "randformer_m48": _of(_RANDOM, "m48", 73.3, 11.9, 0.9),
    "cas_vit_xs": _cas((2, 2, 4, 2), (48, 56, 112, 220), 3.20, 0.560),
    "cas_vit_s": _cas((3, 3, 6, 3), (48, 64, 128, 256), 5.76, 0.932),
    "cas_vit_m": _cas((3, 3, 6, 3), (64, 96, 192, 384), 12.42, 1.887),
    "cas_vit_t": _cas((3, 3, 6, 3), (96, 128, 256, 512), 21.76, 3.597),
    "ffnet_1": _ffnet((2, 2, 8, 2), (80, 160, 320, 640), 3, None, 13.7, 2.9),
    "ffnet_2": _ffnet((3, 3, 15, 3), (88, 176, 352, 704), 7, None, 26.9, 6.0),
    "ffnet_3": _ffnet((4, 4, 22, 5), (96, 192, 384, 768), 7, 1e-6, 48.3, 10.1),
    "ffnet_4": _ffnet((4, 4, 27, 3), (128, 256, 512, 1024), 7, 1e-6, 79.2, 43.1, 384),
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


def __getattr__(name: str) -> Callable[[], Factory]:
    if name in PRESETS:
        return partial(factory, name)
    raise AttributeError(f"there is no preset {name}")


def factory(name: str) -> Factory:
    """A preset with weights drawn for seed 0, and an example input [1, ...]."""
    preset = PRESETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return preset.build().eval(), (torch.zeros(1, *preset.input),)
