"""Tiny Time Mixers: mixer layers at several lengths of patches, a decoder, a head."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.series.block import MixerLayer, Plan
from edgemix.models.series.patches import Patches
from edgemix.models.series.scaling import standardize


class AdaptivePatching(nn.Module):
    """Mixer layers on patches that are split: ``factor`` times as many, with as few features.

    Ekambaram et al., "Tiny Time Mixers", NeurIPS 2024, section 3.1, "Adaptive patching", with
    factor 2^(level - 1).

    Shape: [n, channels, patches, hidden] → the same.

    Raises:
        InputError: the features do not divide by the factor.
    """

    def __init__(self, plan: Plan, factor: int, layers: int) -> None:
        super().__init__()
        if plan.hidden % factor:
            raise InputError(
                f"{plan.hidden} features do not divide into {factor} parts of a patch",
                do="choose features that 2 to the number of levels less one divides",
            )
        self.factor = factor
        split = replace(plan, patches=plan.patches * factor, hidden=plan.hidden // factor)
        self.layers = nn.Sequential(*(MixerLayer(split) for _ in range(layers)))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        n, channels, patches, hidden = x.shape
        parts = x.reshape(n, channels, patches * self.factor, hidden // self.factor)
        mixed: Tensor = self.layers(parts)
        return mixed.reshape(x.shape)


class ResolutionPrefix(nn.Module):
    """One more patch in front, which says how far apart the steps of the series are.

    Ekambaram et al., "Tiny Time Mixers", NeurIPS 2024, section 3.1, "Resolution prefix tuning": an
    embedding of the resolution, then an MLP to a patch's features. A deployed model sees series of
    one resolution, so which one is an argument of the model and the patch a constant of its graph.

    Shape: [n, channels, patches, hidden] → [n, channels, patches + 1, hidden].

    Args:
        known: how many resolutions there are.
        chosen: which of them the series have.
        length: steps of a patch, which is the embedding's width.
        hidden: features of a patch.

    Raises:
        InputError: the chosen one is not among those that are known.
    """

    def __init__(self, known: int, chosen: int, length: int, hidden: int) -> None:
        super().__init__()
        if not 0 <= chosen < known:
            raise InputError(
                f"resolution {chosen} is not among {known}", do=f"choose one of 0 to {known - 1}"
            )
        self.chosen = chosen
        middle = (length + hidden) // 2
        self.embedding = nn.Embedding(known, length)
        self.mlp = nn.Sequential(nn.Linear(length, middle), nn.GELU(), nn.Linear(middle, hidden))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        prefix = self.mlp(self.embedding.weight[self.chosen])
        return torch.cat([prefix.expand(*x.shape[:2], 1, -1), x], 2)


class Ttm(nn.Module):
    """Instance normalization, patches, a backbone with adaptive patching, a decoder, a head.

    Ekambaram et al., "Tiny Time Mixers (TTMs): Fast Pre-trained Models for Enhanced Zero/Few-Shot
    Forecasting of Multivariate Time Series", NeurIPS 2024, section 3 and figure 1. The backbone is
    channel-independent; the decoder mixes channels where that is asked for. The exogenous mixer,
    which takes what is known of the forecast's own time, is left out.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series; their number is a weight's size only where they are mixed.
        patch: steps of a patch.
        hidden: features of a patch in the backbone.
        levels: of adaptive patching, from the most parts of a patch to whole ones.
        layers: how many mixer layers each level has.
        decoder_hidden: features of a patch in the decoder.
        decoder_layers: how many mixer layers it has.
        expansion: of the MLPs.
        mix_channels: whether the decoder mixes channels.
        resolutions: how many the resolution prefix knows; None for no prefix.
        resolution: which of them the series have.

    Raises:
        InputError: the patches do not end where the series does, the features do not divide into
            the parts of the first level, or the resolution is not known.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int = 1,
        patch: int = 64,
        hidden: int = 192,
        levels: int = 3,
        layers: int = 2,
        decoder_hidden: int = 128,
        decoder_layers: int = 2,
        expansion: int = 2,
        mix_channels: bool = False,
        resolutions: int | None = None,
        resolution: int = 0,
    ) -> None:
        super().__init__()
        self.patches = Patches(time, patch, hidden)
        count = self.patches.count
        self.prefix: nn.Module = nn.Identity()
        if resolutions is not None:
            self.prefix = ResolutionPrefix(resolutions, resolution, patch, hidden)
            count += 1
        plan = Plan(count, hidden, expansion=expansion)
        factors = [2**level for level in reversed(range(levels))]
        self.backbone = nn.Sequential(*(AdaptivePatching(plan, f, layers) for f in factors))
        decoding = replace(plan, hidden=decoder_hidden, channels=channels if mix_channels else None)
        same = hidden == decoder_hidden
        self.decoder = nn.Sequential(
            nn.Identity() if same else nn.Linear(hidden, decoder_hidden),
            *(MixerLayer(decoding) for _ in range(decoder_layers)),
        )
        self.head = nn.Linear(count * decoder_hidden, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        series = standardize(x.transpose(1, 2))
        tokens = self.prefix(self.patches(series.values))
        decoded = self.decoder(self.backbone(tokens))
        forecast = cast(Tensor, self.head(decoded.flatten(2)))
        return series.restore(forecast).transpose(1, 2)
