"""Max-Former, at its sizes for ImageNet and for CIFAR."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.presets.base import Preset
from edgemix.models.spiking.staged_max_former import (
    SpikingStage,
    StagedMaxFormer,
    attention,
    depthwise,
    max_pooled,
    quarter_size_start,
    whole_size_start,
)

STEPS = 4
"""For how long a picture is shown."""


def _imagenet(dim: int) -> nn.Module:
    """Ten blocks in three stages (table 3 and the code)."""
    stages = [
        SpikingStage(dim // 4, 1, quarter_size_start, 4, depthwise(7)),
        SpikingStage(dim // 2, 2, max_pooled, 2, depthwise(5)),
        SpikingStage(dim, 7, max_pooled, 2, attention(dim // 64)),
    ]
    return StagedMaxFormer(3, (224, 224), 1000, stages)


def _cifar(classes: int, dim: int = 384) -> nn.Module:
    """Four blocks in three stages (tables 2 and 4 and the code)."""
    stages = [
        SpikingStage(dim // 4, 1, whole_size_start, 1, None),
        SpikingStage(dim // 2, 1, max_pooled, 2, depthwise(3)),
        SpikingStage(dim, 2, max_pooled, 2, attention(8)),
    ]
    return StagedMaxFormer(3, (32, 32), classes, stages)


_PAPER = "Fang et al., Spiking Neural Networks Need High-Frequency Information, NeurIPS 2025"


def _large(dim: int, parameters: float) -> Preset:
    source = f"{_PAPER}, table 3, and its code"
    return Preset(partial(_imagenet, dim), (STEPS, 3, 224, 224), parameters, None, source)


def _small(classes: int, parameters: float) -> Preset:
    source = f"{_PAPER}, table 2, and its code"
    return Preset(partial(_cifar, classes), (STEPS, 3, 32, 32), parameters, None, source)


PRESETS = {
    # The table says 16.23, which is what its code's 16,237,240 are when they are cut off.
    "max_former_10_384": _large(384, 16.24),
    "max_former_10_512": _large(512, 28.65),
    "max_former_10_768": _large(768, 63.99),
    "max_former_cifar10": _small(10, 6.57),
    "max_former_cifar100": _small(100, 6.60),
}
