"""FMViT, at a size of its own.

Of Tan et al., "FMViT: A multiple-frequency mixing Vision Transformer", 2023, the parts are built
as its abstract names them: stages of convolutional fusion blocks (CFB) that end in multi-frequency
fusion blocks (FMB), reparameterized multi-group convolutions (gMLP) for all maps of channels, and
lightweight attention (RLMHSA). The authors published no code, and their table of layers was not at
hand; what the abstract leaves open is taken from Next-ViT (Li et al., 2022). Hence no model here
bears a published name, and no number of parameters is claimed to be theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from torch import nn

from edgemix.models.branches import GroupedBranches, NormedConv
from edgemix.models.lively import drawn, see_noise
from edgemix.models.metaformer import MetaFormer, Mixer, Stage, Stem
from edgemix.models.mixers.convolutional_fusion import ConvolutionalFusion
from edgemix.models.mixers.frequency_mixing import FrequencyMixing
from edgemix.models.mixers.grouped_mlp import GroupedMlp
from edgemix.models.presets.base import Factory


def fmvit(
    dims: Sequence[int], depths: Sequence[tuple[int, int]], pools: Sequence[int],
    heads: Sequence[int], classes: int = 1000,
) -> MetaFormer:  # fmt: skip
    """Stages of fusion blocks; norms stand behind convolutions, not in front of mixers.

    Shape: [n, 3, h, w] → [n, classes]; h and w are multiples of 2 for the stem and for every stage
    but the first, and then of the stage's pool.

    Args:
        dims: of the stages.
        depths: for every stage, how many CFB and then how many FMB.
        pools: by how much attention averages keys and values.
        heads: of attention.
        classes: of the output.
    """
    stages: list[Stage] = []
    for i, (dim, counts) in enumerate(zip(dims, depths, strict=True)):
        mixing = partial(FrequencyMixing, heads=heads[i], pool=pools[i])
        embedding: Stem = _merged if i else _stem
        mixers: tuple[Mixer, Mixer] = (ConvolutionalFusion, mixing)
        for mixer, count in zip(mixers, counts, strict=True):
            if count:
                stages.append(Stage(dim, count, mixer, GroupedMlp, embedding))
                embedding = _kept
    return MetaFormer(stages, norm=nn.Identity, classes=classes)


def _stem(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(
        NormedConv(channels, dim // 2, 3, 2), nn.ReLU(), NormedConv(dim // 2, dim, 3), nn.ReLU()
    )


def _merged(channels: int, dim: int) -> nn.Module:
    return nn.Sequential(nn.AvgPool2d(2), GroupedBranches(channels, dim))


def _kept(channels: int, dim: int) -> nn.Module:
    return nn.Identity()


def tiny() -> Factory:
    """Every part at 8×8 and 4×4 positions, norms that have seen noise, and [1, 3, 16, 16]."""
    build = partial(fmvit, (8, 16), ((1, 1), (0, 1)), (2, 1), (1, 2), classes=10)
    shape = (3, 16, 16)
    return drawn(build, shape, partial(see_noise, shape=shape))
