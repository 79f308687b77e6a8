"""CAS-ViT."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.heads import DistilledHead
from edgemix.models.lively import lively
from edgemix.models.metaformer import Embedding, MetaFormer, Stage
from edgemix.models.mixers.additive_attention import AdditiveAttention
from edgemix.models.mixers.local_perception import LocalPerception
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.stems import two_convolutions


def _cas_vit(depths: tuple[int, ...], dims: tuple[int, ...], classes: int = 1000) -> nn.Module:
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
    return MetaFormer(stages, classes=classes, final=nn.BatchNorm2d, head=DistilledHead)


def _cas(depths: tuple[int, ...], dims: tuple[int, ...], parameters: float, macs: float) -> Preset:
    build = partial(_cas_vit, depths, dims)
    return Preset(build, (3, 224, 224), parameters, macs, _SOURCE)


_SOURCE = "Zhang et al., CAS-ViT, 2024, table 1"

PRESETS = {
    "cas_vit_xs": _cas((2, 2, 4, 2), (48, 56, 112, 220), 3.20, 0.560),
    "cas_vit_s": _cas((3, 3, 6, 3), (48, 64, 128, 256), 5.76, 0.932),
    "cas_vit_m": _cas((3, 3, 6, 3), (64, 96, 192, 384), 12.42, 1.887),
    "cas_vit_t": _cas((3, 3, 6, 3), (96, 128, 256, 512), 21.76, 3.597),
}


def tiny() -> Factory:
    """A block in every stage, from 8×8 positions to one."""
    return lively(partial(_cas_vit, (1, 1, 1, 1), (8, 8, 12, 16), 10), (3, 32, 32))
