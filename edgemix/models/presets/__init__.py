"""Published models by name, at their published sizes, a file for each family.

``edgemix deploy edgemix.models.presets:identityformer_s12`` takes any of them with weights as they
are drawn: for size, latency and what a target takes. What timm has is timm's: ``timm:NAME``.
"""

from __future__ import annotations

from collections.abc import Callable

from edgemix.models.presets import baselines, cas_vit, ffnet, hydra, iformer, mamba_mixer
from edgemix.models.presets.base import Factory, Preset

PRESETS: dict[str, Preset] = {
    **baselines.PRESETS, **cas_vit.PRESETS, **ffnet.PRESETS, **hydra.PRESETS, **iformer.PRESETS,
    **mamba_mixer.PRESETS,
}  # fmt: skip


def __getattr__(name: str) -> Callable[[], Factory]:
    if name in PRESETS:
        return PRESETS[name].factory
    raise AttributeError(f"there is no preset {name}")


def __dir__() -> list[str]:
    return sorted(PRESETS)
