"""SkiM, the causal separator of two speakers."""

from __future__ import annotations

from edgemix.models.presets.base import Preset
from edgemix.models.recurrent.skim_separator import SkiMSeparator
from edgemix.streaming.protocol import Stepwise

_SEGMENT = 250


def _causal() -> Stepwise:
    return SkiMSeparator(64, 128, 6, segment=_SEGMENT)


PRESETS = {
    "skim_causal": Preset(
        _causal, (2 * _SEGMENT, 1), None, None,
        "Li et al., SkiM, ICASSP 2022, and its authors' recipe in ESPnet",
        counted=2.1,
    ),
}  # fmt: skip
