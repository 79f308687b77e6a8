"""ViM2 of MambaMixer, and small ViM2 and TSM2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from edgemix.models.mamba_mixer import TSM2, Level, MambaMixer, ViM2
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.recurrent.selective_scan import SelectiveScan


def _vim2(dim: int, depth: int) -> nn.Module:
    """The published plan (table 8): two layers in a token mixer, for each channel mixer.

    It leaves open what a channel mixer's step is and whether it has a gate, whether the scans of
    the four ways share parameters, how maps are halved, and where norms are. No choice explains
    the counts of all sizes: ViM2-S has 12 token layers and 6 channel mixers of stage 3 more than
    ViM2-T and 23 million parameters, half of them in stage 3 of ViM2-T then make more than half of
    its 20, and stage 4, of twice the width, has no place in the rest. No code is published.
    """
    plan = ((dim, 2 * dim, 1), (2 * dim, 4 * dim, 1), (4 * dim, 8 * dim, depth))
    return ViM2([*(Level(*p) for p in plan), Level(8 * dim, 8 * dim, 1)])


def _of(dim: int, depth: int, parameters: float, counted: float) -> Preset:
    source = "Behrouz et al., MambaMixer, 2024, tables 2 and 8"
    build = partial(_vim2, dim, depth)
    return Preset(build, (3, 224, 224), parameters, None, source, counted=counted)


PRESETS = {
    "vim2_t": _of(96, 3, 20, 24.0),
    "vim2_s": _of(96, 9, 43, 43.6),
    "vim2_b": _of(128, 9, 74, 75.5),
}


def tiny() -> Factory:
    """ViM2 of two levels, the second with two layers in its token mixer, on 3×8×8."""
    levels = (Level(4, 6, depth=1, layers=1), Level(6, 6, depth=1))
    return _lively(lambda: ViM2(levels, classes=10, states=2, patch=2), (3, 8, 8))


def tiny_series() -> Factory:
    """TSM2 of two blocks: four steps ahead from sixteen, of three variates.

    TSM2 has no preset: its sizes were searched for each data set and are not published.
    """
    return _lively(lambda: TSM2(16, 4, patch=2, dim=4, depth=2, states=2), (16, 3))


def _lively(build: Callable[[], nn.Module], shape: tuple[int, ...]) -> Factory:
    """With averages of all that went before and steps that forget, as if trained."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = build()
        for part in module.modules():
            if isinstance(part, SelectiveScan):
                nn.init.uniform_(part.rate.bias, -1, 1)
            if isinstance(part, MambaMixer):
                for weights in (part.alpha, part.beta, part.theta, part.gamma):
                    for w in weights:
                        nn.init.uniform_(w, -0.5, 1)
    return module.eval(), (torch.zeros(1, *shape),)
