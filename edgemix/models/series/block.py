"""A mixer layer: channels, patches and features of a series, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from edgemix.models.series.gated_mlp import GatedAttention, Mlp

_CHANNELS, _PATCHES, _FEATURES = 1, 2, 3


@dataclass(frozen=True)
class Plan:
    """The sizes of a mixer layer."""

    patches: int
    hidden: int
    channels: int | None = None
    """How many are mixed with each other; None leaves channels to themselves."""
    expansion: int = 2
    gated: bool = True
    norm: Callable[[int], nn.Module] = nn.LayerNorm
    """Of the hidden features; ``FeatureNorm`` is the published batch norm."""


class Mix(nn.Module):
    """x ← x + gate(mlp(norm(x))), the MLP and the gate along one axis.

    Ekambaram et al., "TSMixer", KDD 2023, section 3.2.2 and figure 4. The published code has the
    gate in front of the MLP where it mixes channels, and behind it elsewhere.

    Shape: [n, channels, patches, hidden] → the same.
    """

    def __init__(self, plan: Plan, axis: int, size: int) -> None:
        super().__init__()
        self.axis = axis
        self.norm = plan.norm(plan.hidden)
        mlp = Mlp(size, plan.expansion)
        gate = [GatedAttention(size)] if plan.gated else []
        self.mlp = nn.Sequential(*gate, mlp) if axis == _CHANNELS else nn.Sequential(mlp, *gate)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed = self.mlp(self.norm(x).transpose(self.axis, _FEATURES))
        result: Tensor = x + mixed.transpose(self.axis, _FEATURES)
        return result


class MixerLayer(nn.Module):
    """Channels if the plan mixes them, then patches, then hidden features.

    A single patch has nothing to be mixed with, and no mixer of patches, as in TTM's code.

    Shape: [n, channels, patches, hidden] → the same.
    """

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        mixers: list[nn.Module] = []
        if plan.channels is not None:
            mixers.append(Mix(plan, _CHANNELS, plan.channels))
        if plan.patches > 1:
            mixers.append(Mix(plan, _PATCHES, plan.patches))
        mixers.append(Mix(plan, _FEATURES, plan.hidden))
        self.mixers = nn.Sequential(*mixers)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = self.mixers(x)
        return mixed
