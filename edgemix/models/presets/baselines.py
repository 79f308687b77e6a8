"""IdentityFormer and RandFormer; ConvFormer and CAFormer are timm's."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.activations import StarReLU
from edgemix.models.heads import NormedHead
from edgemix.models.lively import lively
from edgemix.models.metaformer import Embedding, MetaFormer, Mixer, Stage
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.mixers.random_matrix import RandomMatrix
from edgemix.models.mixers.separable_conv import SeparableConv
from edgemix.models.norm import MapNorm
from edgemix.models.presets.base import Factory, Preset


def _baseline(
    depths: tuple[int, ...],
    dims: tuple[int, ...],
    mixers: tuple[Mixer, ...],
    classes: int = 1000,
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
    return MetaFormer(stages, classes=classes, norm=partial(MapNorm, bias=False), head=NormedHead)


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
_SOURCE = "Yu et al., MetaFormer Baselines for Vision, TPAMI 2024, table 2"


def _of(
    kind: tuple[Mixer, ...], size: str, parameters: float, macs: float, frozen: float = 0.0
) -> Preset:
    depths, dims = _SIZES[size]
    build = partial(_baseline, depths, dims, kind)
    return Preset(build, (3, 224, 224), parameters, macs, _SOURCE, frozen)


PRESETS = {
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
}


def tiny() -> Factory:
    """CAFormer's kind: two stages of separable convolutions, two of attention, to one position."""
    return _tiny((SeparableConv, SeparableConv, Attention, Attention), 32)


def tiny_random() -> Factory:
    """RandFormer's kind: two stages of identity, two of random matrices, to 2×2 positions."""
    last = (partial(RandomMatrix, positions=16), partial(RandomMatrix, positions=4))
    return _tiny((nn.Identity, nn.Identity, *last), 64)


def _tiny(mixers: tuple[Mixer, ...], size: int) -> Factory:
    build = partial(_baseline, (1, 1, 1, 1), (8, 8, 12, 16), mixers, 10)
    return lively(build, (3, size, size))
