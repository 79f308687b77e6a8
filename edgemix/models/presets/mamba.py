"""Mamba, the smallest language model."""

from __future__ import annotations

from edgemix.models.presets.base import Preset
from edgemix.models.recurrent.mamba_backbone import MambaBackbone
from edgemix.streaming.protocol import Stepwise

_DIM, _VOCABULARY = 768, 50_280
"""50,277 entries, padded to a multiple of eight."""


def _smallest() -> Stepwise:
    """The embedding's 38.6 million are the head's; a program takes rows of it, found outside."""
    return MambaBackbone(_DIM, 24, _VOCABULARY)


PRESETS = {
    "mamba_130m": Preset(
        _smallest, (32, _DIM), 129.1, None,
        "Gu and Dao, Mamba, 2023, and the configuration of its checkpoint mamba-130m",
    ),
}  # fmt: skip
