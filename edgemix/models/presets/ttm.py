"""Tiny Time Mixers."""

from __future__ import annotations

from functools import partial
from typing import Any

from edgemix.models.lively import lively
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.series.ttm import Ttm

_NARROW = {"patch": 64, "hidden": 192, "decoder_hidden": 128}
_WIDE = {"patch": 128, "hidden": 384, "decoder_hidden": 256}
_RESOLUTIONS = 8


def _ttm(time: int, sizes: dict[str, Any], parameters: float, model: str) -> Preset:
    """One of the published ones: three levels of two layers, two in the decoder, 96 steps ahead.

    The plan for 1,024 steps and more, and the eight resolutions, are those that give the counts.
    """
    build = partial(Ttm, time=time, horizon=96, **sizes)
    source = f"{model}: what the granite-tsfm notebooks count, and config.json of those for 512"
    return Preset(build, (time, 1), parameters, None, source)


_R1 = "ibm-granite/granite-timeseries-ttm-r1"
_R2 = "ibm-granite/granite-timeseries-ttm-r2"
_RESEARCH = "ibm-research/ttm-research-r2"
_PREFIX = {"resolutions": _RESOLUTIONS}

PRESETS = {
    "ttm_r1_512": _ttm(512, _NARROW, 0.805280, _R1),
    "ttm_r1_1024": _ttm(1024, _NARROW, 0.946336, _R1),
    "ttm_r2_512": _ttm(512, _NARROW, 0.805280, _R2),
    "ttm_r2_1024": _ttm(1024, _WIDE, 2.964960, _R2),
    "ttm_r2_1536": _ttm(1536, _WIDE, 3.081120, _R2),
    "ttm_research_512": _ttm(512, _NARROW | _PREFIX, 0.854972, _RESEARCH),
    "ttm_research_1024": _ttm(1024, _WIDE | _PREFIX, 3.126076, _RESEARCH),
    "ttm_research_1536": _ttm(1536, _WIDE | _PREFIX, 3.243996, _RESEARCH),
}


def tiny() -> Factory:
    """All parts small, on two series of 16 steps: prefix, two levels, channels mixed at the end."""
    build = partial(
        Ttm, time=16, horizon=4, channels=2, patch=4, hidden=12, levels=2, layers=1,
        decoder_hidden=8, decoder_layers=1, mix_channels=True, resolutions=3, resolution=1,
    )  # fmt: skip
    return lively(build, (16, 2))
