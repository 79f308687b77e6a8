"""PatchTSMixer: an MLP-Mixer over the patches of time series."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from edgemix.models.series.block import MixerLayer, Plan
from edgemix.models.series.patches import Patches
from edgemix.models.series.scaling import standardize


class PatchTSMixer(nn.Module):
    """Instance normalization, patches, mixer layers, a linear head over all patches.

    Ekambaram et al., "TSMixer: Lightweight MLP-Mixer Model for Multivariate Time Series
    Forecasting", KDD 2023, section 3, as its authors publish it as PatchTSMixer in transformers.
    The forecasting head; what its code has switched off by default (self-attention, positional
    encodings, forecasts as distributions) is left out.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series; their number is a weight's size only where they are mixed.
        patch: steps of a patch.
        stride: from one patch to the next; None for patches that do not overlap.
        hidden: features of a patch.
        layers: how many mixer layers.
        expansion: of the MLPs.
        mix_channels: whether channels are mixed with each other, or only share weights.
        gated: whether MLPs have gated attention.
        norm: of the hidden features.

    Raises:
        InputError: the patches do not end where the series does.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int = 1,
        patch: int = 16,
        stride: int | None = None,
        hidden: int = 48,
        layers: int = 2,
        expansion: int = 2,
        mix_channels: bool = False,
        gated: bool = True,
        norm: Callable[[int], nn.Module] = nn.LayerNorm,
    ) -> None:
        super().__init__()
        self.patches = Patches(time, patch, hidden, stride)
        plan = Plan(
            self.patches.count, hidden, channels if mix_channels else None, expansion, gated, norm
        )
        self.layers = nn.Sequential(*(MixerLayer(plan) for _ in range(layers)))
        self.head = nn.Linear(plan.patches * hidden, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        series = standardize(x.transpose(1, 2))
        tokens = self.layers(self.patches(series.values))
        forecast = self.head(tokens.flatten(2))
        return series.restore(forecast).transpose(1, 2)
