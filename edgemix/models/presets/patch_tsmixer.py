"""PatchTSMixer."""

from __future__ import annotations

from functools import partial

from edgemix.models.lively import lively
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.series.patch_tsmixer import PatchTSMixer

PRESETS = {
    "patch_tsmixer_512": Preset(
        partial(
            PatchTSMixer, time=512, horizon=96, channels=7, patch=16, hidden=48, layers=2,
            expansion=3,
        ),
        (512, 7), 0.196, None,
        "ibm-granite/granite-timeseries-patchtsmixer: config.json, and 789 kB of float32 weights",
    ),
}  # fmt: skip


def tiny() -> Factory:
    """All parts small, on three series of 16 steps: overlapping patches, channels mixed."""
    build = partial(
        PatchTSMixer, time=16, horizon=4, channels=3, patch=4, stride=2, hidden=8, layers=2,
        mix_channels=True,
    )  # fmt: skip
    return lively(build, (16, 3))
