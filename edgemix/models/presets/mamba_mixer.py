"""ViM2 of MambaMixer, and small ViM2 and TSM2."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from edgemix.models.lively import drawn
from edgemix.models.mamba_mixer import TSM2, Level, MambaMixer, ViM2
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.recurrent.selective_scan import SelectiveScan


def _vim2(dim: int, depth: int) -> nn.Module:
    """The published plan (table 8): two layers in a token mixer, for each channel mixer.

    It leaves open what a step over channels holds and whether a channel mixer has a gate, whether
    the four ways share parameters, how maps are halved and where norms are; no code is published.
    No reading explains all three counts. The 23 million between ViM2-S and ViM2-T are 12 token
    layers and 6 channel mixers of stage 3, so 3.8 million are two layers and a mixer; three times
    that, the linear maps of stage 4, four times as large, its mixer, as wide as stage 3's, and the
    classifier are more than the 20 million of ViM2-T. What is built here follows the equations,
    with gates, parameters for every way and VMamba's merging, and comes within 3 % of the two
    larger.
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
    return drawn(build, shape, _wake)


def _wake(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, SelectiveScan):
            nn.init.uniform_(part.rate.bias, -1, 1)
        if isinstance(part, MambaMixer):
            for weights in (part.alpha, part.beta, part.theta, part.gamma):
                for w in weights:
                    nn.init.uniform_(w, -0.5, 1)
