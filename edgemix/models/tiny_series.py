"""Small forecasters of time series, a factory for each: what tests and boards afford.

Every factory gives ``(module, example)`` with fixed random weights and an example [1, 16, 3]:
``edgemix deploy edgemix.models.tiny_series:itransformer``. None of them is a preset of published
size: what is built here has not been held to a published count of parameters.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from edgemix.models.lively import Factory, drawn, enliven, lively
from edgemix.models.series.autoformer import Autoformer
from edgemix.models.series.itransformer import ITransformer
from edgemix.models.series.just_dense import JustDense
from edgemix.models.series.samformer import Samformer
from edgemix.models.series.softs import Softs
from edgemix.models.series.tft import Tft
from edgemix.models.series.xpatch import XPatch

_TIME, _HORIZON, _CHANNELS = 16, 8, 3


def itransformer() -> Factory:
    """ITransformer, two layers of two heads."""
    build = partial(
        ITransformer, time=_TIME, horizon=_HORIZON, hidden=8, heads=2, layers=2, feed_forward=16
    )
    return lively(build, (_TIME, _CHANNELS))


def just_dense() -> Factory:
    """JustDense, two layers."""
    build = partial(
        JustDense, time=_TIME, horizon=_HORIZON, channels=_CHANNELS, hidden=8, feed_forward=16
    )
    return lively(build, (_TIME, _CHANNELS))


def samformer() -> Factory:
    """SAMformer, of which there is but one layer."""
    build = partial(Samformer, time=_TIME, horizon=_HORIZON, channels=_CHANNELS, hidden=4)
    return lively(build, (_TIME, _CHANNELS))


def softs() -> Factory:
    """SOFTS, two layers with a core of half their width."""
    build = partial(
        Softs, time=_TIME, horizon=_HORIZON, hidden=8, core=4, layers=2, feed_forward=16
    )
    return lively(build, (_TIME, _CHANNELS))


def xpatch() -> Factory:
    """XPatch with overlapping patches."""
    build = partial(XPatch, time=_TIME, horizon=_HORIZON, channels=_CHANNELS, patch=4, stride=2)
    # Its many means and norms quieten what is not spread as wide as a trained model's.
    return lively(build, (_TIME, _CHANNELS), spread=1.0)


def autoformer() -> Factory:
    """Autoformer, a layer of the encoder and one of the decoder, two delays of each."""
    build = partial(
        Autoformer, time=_TIME, horizon=_HORIZON, channels=_CHANNELS, hidden=8, feed_forward=16,
        layers=1, decoder_layers=1, kernel=5,
    )  # fmt: skip
    return lively(build, (_TIME, _CHANNELS))


def tft() -> Factory:
    """The Temporal Fusion Transformer, two heads and three quantiles of the first series."""
    build = partial(
        Tft, time=_TIME, horizon=_HORIZON, channels=_CHANNELS, hidden=8, heads=2, quantiles=3
    )
    return drawn(build, (_TIME, _CHANNELS), _remember)


def _remember(module: nn.Module) -> None:
    """Weights so wide that what was seen is heard beside the one input that is always the same."""
    enliven(module, spread=1.5)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.LSTM):
                for p in part.parameters():
                    p.mul_(3.0)
