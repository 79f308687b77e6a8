"""Small forecasters of time series, a factory for each: what tests and boards afford.

Every factory gives ``(module, example)`` with fixed random weights and an example [1, 16, 3]:
``edgemix deploy edgemix.models.tiny_series:itransformer``. Their papers publish no counts of
parameters, so none of them has a preset of published size.
"""

from __future__ import annotations

from functools import partial

from edgemix.models.lively import Factory, lively
from edgemix.models.series.autoformer import Autoformer
from edgemix.models.series.itransformer import ITransformer
from edgemix.models.series.samformer import Samformer
from edgemix.models.series.softs import Softs
from edgemix.models.series.xpatch import XPatch

_TIME, _HORIZON, _CHANNELS = 16, 8, 3


def itransformer() -> Factory:
    """ITransformer, two layers of two heads."""
    build = partial(
        ITransformer, time=_TIME, horizon=_HORIZON, hidden=8, heads=2, layers=2, feed_forward=16
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
