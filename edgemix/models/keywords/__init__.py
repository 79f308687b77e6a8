"""Keyword spotters that hear as they go: ten words, "unknown" and "silence", a step every 20 ms.

Each name in ``MODELS`` is a factory that ``edgemix deploy edgemix.models.keywords:NAME --step``
takes. The weights come with the package and were made by ``python -m edgemix.models.keywords.train
NAME`` from the synthesized speech of :mod:`edgemix.data.speech`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import safetensors.torch
import torch
from torch import Tensor

from edgemix.data.mel import BANDS
from edgemix.data.speech import CLASSES, FRAMES
from edgemix.models.recurrent.lmuformer import LMUFormer
from edgemix.models.spiking.lmuformer import SpikingLMUFormer
from edgemix.streaming.protocol import Stepwise


def _lmuformer() -> Stepwise:
    return LMUFormer(BANDS, len(CLASSES), dim=48, channels=8, order=8, window=32.0)


def _spiking() -> Stepwise:
    return SpikingLMUFormer(BANDS, len(CLASSES), dim=32, channels=8, order=8, window=32.0)


MODELS: dict[str, Callable[[], Stepwise]] = {"lmuformer": _lmuformer, "spiking": _spiking}
"""The untrained models."""


def trained(name: str) -> Stepwise:
    """A model with the weights that come with the package."""
    model = MODELS[name]()
    stored = resources.files(__package__) / f"{name}.safetensors"
    model.load_state_dict(safetensors.torch.load(stored.read_bytes()))
    return model.eval()


def lmuformer() -> tuple[Stepwise, Tensor]:
    """LMUFormer, 48 wide."""
    return trained("lmuformer"), torch.zeros(1, FRAMES, BANDS)


def spiking() -> tuple[Stepwise, Tensor]:
    """Spiking LMUFormer, 32 wide."""
    return trained("spiking"), torch.zeros(1, FRAMES, BANDS)
