"""Published models by name, at their published sizes, a file for each family.

``edgemix deploy edgemix.models.presets:identityformer_s12`` takes any of them with weights as they
are drawn: for size, latency and what a target takes. What timm has is timm's: ``timm:NAME``.
"""

from __future__ import annotations

from collections.abc import Callable

from edgemix.models.presets import (
    affnet,
    baselines,
    cas_vit,
    delays,
    esc_transformer,
    fast_conformer,
    ffnet,
    hydra,
    iformer,
    linear_transformer,
    lmuformer,
    mamba,
    mamba_mixer,
    max_former,
    patch_tsmixer,
    skim,
    ttm,
)
from edgemix.models.presets.base import Factory, Preset

_FAMILIES = (
    affnet, baselines, cas_vit, delays, esc_transformer, fast_conformer, ffnet, hydra, iformer,
    linear_transformer, lmuformer, mamba, mamba_mixer, max_former, patch_tsmixer, skim, ttm,
)  # fmt: skip

PRESETS: dict[str, Preset] = {
    name: preset for family in _FAMILIES for name, preset in family.PRESETS.items()
}


def __getattr__(name: str) -> Callable[[], Factory]:
    if name in PRESETS:
        return PRESETS[name].factory
    raise AttributeError(f"there is no preset {name}")


def __dir__() -> list[str]:
    return sorted(PRESETS)
