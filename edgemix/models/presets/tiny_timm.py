"""Tiny models of timm's families, made of timm's own classes, for what has no preset here.

timm is an extra, ``edgemix[timm]``: every factory loads it when it is called. Where a class fixes
its sizes, the parts that are too large are made again, by the same class of timm with smaller ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from edgemix.models.lively import lively
from edgemix.models.presets.base import Factory

_CLASSES = 10
_IMAGE = (3, 32, 32)


def poolformer() -> Factory:
    """PoolFormer (Yu et al., CVPR 2022), from 8×8 positions to one."""
    from timm.layers.norm import GroupNorm1
    from timm.models.metaformer import MetaFormer

    build = partial(
        MetaFormer, num_classes=_CLASSES, depths=(1, 1, 1, 1), dims=(8, 8, 12, 16),
        downsample_norm=None, mlp_act=nn.GELU, mlp_bias=True, norm_layers=GroupNorm1,
        layer_scale_init_values=1e-5, res_scale_init_values=(None,) * 4, use_mlp_head=False,
    )  # fmt: skip
    return lively(build, _IMAGE)


def efficientformer() -> Factory:
    """EfficientFormer (Li et al., NeurIPS 2022), attention with biases on 2×2 positions."""
    from timm.models.efficientformer import Attention, EfficientFormer

    def build() -> nn.Module:
        module = EfficientFormer(
            (1, 1, 1, 2), (8, 12, 12, 16), num_classes=_CLASSES, num_vit=1,
            downsamples=(False, True, False, True),
        )  # fmt: skip
        return _again(module, Attention, lambda a: Attention(16, 4, 2, 2.0, resolution=2))

    return lively(build, _IMAGE)


def efficientformer_v2() -> Factory:
    """EfficientFormerV2 (Li et al., ICCV 2023): talking heads, strided and shrinking attention."""
    from timm.models.efficientformer_v2 import (
        Attention2d,
        Attention2dDownsample,
        EfficientFormerV2,
    )

    def build() -> nn.Module:
        dims = (8, 8, 12, 16)
        module: nn.Module = EfficientFormerV2(
            (1, 1, 2, 2), img_size=64, embed_dims=dims, num_classes=_CLASSES, num_vit=1
        )

        def mixer(old: Any) -> nn.Module:
            dim = old.proj.conv.out_channels
            stride = None if old.stride_conv is None else 2
            side = old.resolution[0] * (stride or 1)
            return Attention2d(dim, 4, 2, 2, side, stride=stride)

        def downsampler(old: Any) -> nn.Module:
            return Attention2dDownsample(dims[2], 4, 2, 2, old.resolution, dims[3])

        module = _again(module, Attention2d, mixer)
        return _again(module, Attention2dDownsample, downsampler)

    return lively(build, (3, 64, 64))


def next_vit() -> Factory:
    """Next-ViT (Li et al., 2022), the narrowest mixed block that its rounding to 32 allows."""
    from timm.layers.classifier import ClassifierHead
    from timm.models.nextvit import ConvNormAct, NextConvBlock, NextStage, NextTransformerBlock

    def build() -> nn.Module:
        stem = [ConvNormAct(a, b, 3, s) for a, b, s in ((3, 8, 2), (8, 8, 1), (8, 8, 1), (8, 8, 2))]
        norms: dict[str, Any] = {"norm_layer": nn.BatchNorm2d, "act_layer": nn.ReLU}
        stages = [
            NextStage(8, [8], [NextConvBlock], 1, 8, head_dim=8, **norms),
            NextStage(
                8, [16, 40], [NextConvBlock, NextTransformerBlock], 2, 2, 0.75, head_dim=8, **norms
            ),
        ]  # fmt: skip
        last = (nn.BatchNorm2d(40), ClassifierHead(40, _CLASSES))
        return nn.Sequential(*stem, *stages, *last)

    return lively(build, _IMAGE)


def edgenext() -> Factory:
    """EdgeNeXt (Maaz et al., ECCVW 2022): split depthwise kernels and attention over channels."""
    from timm.models.edgenext import EdgeNeXt

    build = partial(
        EdgeNeXt, num_classes=_CLASSES, dims=(8, 8, 12, 16), depths=(1, 2, 2, 2),
        heads=(2, 2, 2, 2),
    )  # fmt: skip
    return lively(build, _IMAGE)


def sequencer2d() -> Factory:
    """Sequencer2D (Tatsunami and Taki, NeurIPS 2022): LSTMs along rows and columns of 4×4."""
    from timm.models.sequencer import Sequencer2d

    build = partial(
        Sequencer2d, num_classes=_CLASSES, layers=(1, 1, 1, 1), patch_sizes=(7, 2, 2, 1),
        embed_dims=(8, 12, 12, 12), hidden_sizes=(2, 3, 3, 3),
    )  # fmt: skip
    return lively(build, (3, 28, 28))


def _again(module: nn.Module, kind: type, make: Callable[[Any], nn.Module]) -> nn.Module:
    """The module with every part of that kind made again."""
    for name, old in list(module.named_modules()):
        if isinstance(old, kind):
            module.set_submodule(name, make(old))
    return module
