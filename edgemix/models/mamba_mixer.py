"""MambaMixer: selective mixers of tokens and of channels, joined by weighted averages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.metaformer import Norm
from edgemix.models.mixers.selective import (
    BOTH,
    SelectiveChannels,
    SelectiveColumns,
    SelectiveRows,
    SelectiveTokens,
)
from edgemix.models.norm import ChannelNorm, MapNorm


class Residual(nn.Module):
    """y = x + mixer(norm(x)).

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(self, norm: nn.Module, mixer: nn.Module) -> None:
        super().__init__()
        self.norm, self.mixer = norm, mixer

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed: Tensor = x + self.mixer(self.norm(x))
        return mixed


class MambaMixer(nn.Module):
    """Token and channel mixers in turn, each reading all that went before it.

    Behrouz et al., "MambaMixer: Efficient Selective State Space Models with Dual Token and Channel
    Selection", 2024, equations 19 and 20, for l = 1 … L with y_T⁰ = y_C⁰ = x:

        y_Tˡ = tokensˡ(Σ_{i<l} α_li y_Tⁱ + Σ_{i<l} β_li y_Cⁱ)
        y_Cˡ = channelsˡ(Σ_{i≤l} θ_li y_Tⁱ + Σ_{i<l} γ_li y_Cⁱ)

    The result is y_C^L. There are L (2 L + 3) learned weights; at first β and θ of the last
    features are one and all others zero, which is a plain chain.

    Shape: [n, c, h, w] → [n, c, h, w].

    Args:
        tokens: L token mixers.
        channels: L channel mixers.

    Raises:
        InputError: there are not as many of the one as of the other.
    """

    def __init__(self, tokens: Sequence[nn.Module], channels: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(tokens) != len(channels):
            raise InputError(
                f"{len(tokens)} token mixers do not alternate with {len(channels)} channel mixers",
                do="give as many of the one as of the other",
            )
        self.tokens, self.channels = nn.ModuleList(tokens), nn.ModuleList(channels)
        counts = range(1, len(tokens) + 1)
        self.alpha = nn.ParameterList(torch.zeros(n) for n in counts)
        self.beta = nn.ParameterList(_last(n) for n in counts)
        self.theta = nn.ParameterList(_last(n + 1) for n in counts)
        self.gamma = nn.ParameterList(torch.zeros(n) for n in counts)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y_t, y_c = [x], [x]
        for i, (tokens, channels) in enumerate(zip(self.tokens, self.channels, strict=True)):
            y_t.append(tokens(_average(self.alpha[i], y_t) + _average(self.beta[i], y_c)))
            y_c.append(channels(_average(self.theta[i], y_t) + _average(self.gamma[i], y_c)))
        return y_c[-1]


def _last(count: int) -> Tensor:
    return torch.eye(count)[-1]


def _average(weights: Tensor, features: list[Tensor]) -> Tensor:
    parts = [weights[i] * y for i, y in enumerate(features)]
    return sum(parts[1:], parts[0])


@dataclass(frozen=True)
class Level:
    """One resolution of :class:`ViM2`."""

    dim: int
    width: int
    """Channels that the channel mixers scan."""
    depth: int
    """Channel mixers, and token mixers of several layers."""
    layers: int = 2
    """That a token mixer has."""


class ViM2(nn.Module):
    """Vision MambaMixer: a convolution, levels of MambaMixer blocks, a classifier on the mean.

    Behrouz et al., 2024, section 4 and table 8. Between levels the map is halved and its channels
    change by a 2×2 convolution behind a norm, VMamba's patch merging.

    Shape: [n, channels, h, w] → [n, classes].

    Args:
        levels: from the finest to the coarsest.
        channels: of the input.
        classes: of the output.
        states: of every scan.
        patch: side of the patches that the first convolution embeds.
    """

    def __init__(
        self, levels: Sequence[Level], *, channels: int = 3, classes: int = 1000,
        states: int = 16, patch: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        stages: list[nn.Module] = []
        width = channels
        for i, level in enumerate(levels):
            if i:
                stages.append(ChannelNorm(width))
            side = 2 if i else patch
            stages.append(nn.Conv2d(width, level.dim, side, side, bias=not i))
            stages.append(_level(level, states))
            width = level.dim
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.head(self.stages(x).mean(dim=(2, 3)))
        return logits


def _level(level: Level, states: int) -> MambaMixer:
    dim = level.dim

    def behind_norm(mixer: nn.Module) -> nn.Module:
        return Residual(ChannelNorm(dim), mixer)

    def tokens() -> nn.Module:
        layers = [SelectiveTokens(dim, states=states) for _ in range(level.layers)]
        return nn.Sequential(*map(behind_norm, layers))

    def channels() -> nn.Module:
        return behind_norm(SelectiveChannels(dim, width=level.width, states=states))

    every = range(level.depth)
    return MambaMixer([tokens() for _ in every], [channels() for _ in every])


class TSM2(nn.Module):
    """Time Series MambaMixer: forecasts of several variates at once.

    Behrouz et al., 2024, section 5: each variate is cut into patches of its own; token mixers scan
    time, forward only, channel mixers the variates, both ways, behind norms over time and features
    together; a linear map reads the horizon off a variate's patches. Auxiliary information is more
    time in the input (equation 23), for whoever has it.

    Shape: [n, time, variates] → [n, horizon, variates].

    Args:
        time: steps of the input.
        horizon: steps of the forecast.
        patch: steps of a patch.
        dim: features of a patch.
        depth: MambaMixer blocks.
        states: of every scan.
        norm: in front of every mixer.

    Raises:
        InputError: patches do not divide the time.
    """

    def __init__(
        self, time: int, horizon: int, *, patch: int, dim: int, depth: int, states: int = 16,
        norm: Norm = MapNorm,
    ) -> None:  # fmt: skip
        super().__init__()
        if time % patch:
            raise InputError(
                f"{time} steps do not divide into patches of {patch}",
                do="choose a patch that divides the time, or cut the series",
            )
        self.patches = time // patch
        self.embed = nn.Conv2d(1, dim, (1, patch), (1, patch))
        self.blocks = MambaMixer(
            [Residual(norm(dim), SelectiveRows(dim, states=states)) for _ in range(depth)],
            [
                Residual(norm(dim), SelectiveColumns(dim, ways=BOTH, states=states))
                for _ in range(depth)
            ],
        )
        self.head = nn.Linear(self.patches * dim, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        y = self.blocks(self.embed(x.transpose(1, 2)[:, None]))
        forecast: Tensor = self.head(y.permute(0, 2, 3, 1).flatten(2))
        return forecast.transpose(1, 2)
