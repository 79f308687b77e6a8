"""The cache-aware FastConformer, large, with its CTC decoder."""

from __future__ import annotations

from edgemix.models.presets.base import Preset
from edgemix.models.recurrent.fast_conformer import FastConformer
from edgemix.streaming.protocol import Stepwise

_BANDS, _TOKENS = 80, 1024


def _large() -> Stepwise:
    """Looks 13 positions ahead, a chunk being 14, and 70 back."""
    return FastConformer(
        _BANDS, _TOKENS + 1, dim=512, depth=17, heads=8, channels=256, chunk=14, reach=70
    )


PRESETS = {
    # "Around 114M" and "~115M", as its authors put it, are with a transducer's decoder.
    "fast_conformer_large": Preset(
        _large, (2 * 14 * 8, _BANDS), None, None,
        "Noroozi et al., Stateful Conformer, ICASSP 2024, and NeMo's configuration",
        counted=109.4,
    ),
}  # fmt: skip
