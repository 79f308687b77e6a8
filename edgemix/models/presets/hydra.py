"""Hydra."""

from __future__ import annotations

from functools import partial

from torch import nn

from edgemix.models.hydra import HydraImage, HydraText, Layers
from edgemix.models.lively import drawn
from edgemix.models.presets.base import Factory, Preset
from edgemix.models.recurrent.hydra import Hydra


def _text() -> nn.Module:
    """The published code: 23 layers, words padded to a multiple of eight."""
    return HydraText(Layers(768, 23), vocabulary=30528)


def _image() -> nn.Module:
    """The nearest to what is published of Hydra-ViT-B.

    "The default configuration" of the layer in place of ViT's in the code of S4, its authors say;
    not how many. 23 layers, as in their text model and in their Chimera-ViT-B, have 89.4 million
    parameters and 24 have 93.2; 91 would be 23 with heads of 32 or 24 with 32 states.
    """
    return HydraImage(Layers(768, 23))


_SOURCE = "Hwang et al., Hydra, NeurIPS 2024, and its code"

PRESETS = {
    "hydra_bert": Preset(_text, (128, 768), 112, None, _SOURCE),
    "hydra_vit_b": Preset(_image, (3, 224, 224), 91, None, _SOURCE, counted=89.4),
}


def tiny() -> Factory:
    """Two layers of two heads on sixteen patches of 3×8×8."""
    options = {"states": 3, "kernel": 3, "size": 4}
    build = partial(HydraImage, Layers(4, 2, options), patch=2, classes=10)
    return drawn(build, (3, 8, 8), _wake)


def _wake(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, Hydra):
            # Larger steps than those that training starts from, so that states forget.
            nn.init.uniform_(part.rate, -1, 1)
            nn.init.uniform_(part.log_decay, -1, 1)
