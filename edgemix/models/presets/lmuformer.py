"""LMUFormer and spiking LMUFormer for Google's speech commands."""

from __future__ import annotations

from edgemix.models.presets.base import Preset
from edgemix.models.recurrent.conv_lmuformer import ConvLMUFormer
from edgemix.models.spiking.conv_lmuformer import SpikingConvLMUFormer
from edgemix.streaming.protocol import Stepwise

_FRAMES, _BANDS, _WORDS = 128, 128, 35


def _lmuformer() -> Stepwise:
    """As many coefficients of memory as features."""
    return ConvLMUFormer(_BANDS, _WORDS, dim=256, order=256, window=128.0)


def _spiking() -> Stepwise:
    """Twice as many."""
    return SpikingConvLMUFormer(_BANDS, _WORDS, dim=256, order=512, window=128.0)


_SOURCE = "Liu et al., LMUFormer, ICLR 2024, table 2, and its code"

PRESETS = {
    "lmuformer_commands": Preset(_lmuformer, (_FRAMES, _BANDS), 1.62, None, _SOURCE),
    "spiking_lmuformer_commands": Preset(_spiking, (_FRAMES, _BANDS), 1.69, None, _SOURCE),
}
