"""Autoformer: every layer takes the trend off a series and leaves the season to the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.series.auto_correlation import AutoCorrelation
from edgemix.models.series.moving_average import MovingAverage
from edgemix.models.sizes import check_size


@dataclass(frozen=True)
class Plan:
    """The sizes that all layers of an Autoformer share."""

    hidden: int
    feed_forward: int
    kernel: int
    """Of the moving averages."""
    factor: float
    """How many delays are kept, in logarithms of the time."""


class CircularConv(nn.Module):
    """A convolution over three steps, without bias; the first follows the last.

    Shape: [n, time, features] → [n, time, outputs].
    """

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(features, outputs, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        around = torch.cat([x[:, -1:], x, x[:, :1]], 1)
        return cast(Tensor, self.conv(around.transpose(1, 2)).transpose(1, 2))


class SeasonNorm(nn.Module):
    """Layer normalization of each step, and then the mean over time taken off.

    Wu et al., "Autoformer", NeurIPS 2021, authors' code.

    Shape: [n, time, hidden] → the same.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        normed = self.norm(x)
        return cast(Tensor, normed - normed.mean(1, keepdim=True))


def _mlp(plan: Plan) -> nn.Module:
    return nn.Sequential(
        nn.Linear(plan.hidden, plan.feed_forward, bias=False), nn.GELU(),
        nn.Linear(plan.feed_forward, plan.hidden, bias=False),
    )  # fmt: skip


class EncoderLayer(nn.Module):
    """The season of x + correlation(x), then that of x + mlp(x).

    Wu et al., "Autoformer", NeurIPS 2021, section 3.1, equation 3.

    Shape: [n, time, hidden] → the same.
    """

    def __init__(self, plan: Plan, time: int) -> None:
        super().__init__()
        self.correlation = AutoCorrelation(plan.hidden, time, plan.factor)
        self.mlp = _mlp(plan)
        self.decomposition = MovingAverage(plan.kernel)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        season, _ = self.decomposition(x + self.correlation(x, x))
        season, _ = self.decomposition(season + self.mlp(season))
        return cast(Tensor, season)


class DecoderLayer(nn.Module):
    """Correlation with itself, with what was seen, an MLP; the trends of all three are summed.

    Wu et al., "Autoformer", NeurIPS 2021, section 3.1, equation 4.

    Shape: [n, time, hidden], [n, source, hidden] → [n, time, hidden], [n, time, channels]: season,
    and what is added to the trend.
    """

    def __init__(self, plan: Plan, time: int, channels: int) -> None:
        super().__init__()
        self.own = AutoCorrelation(plan.hidden, time, plan.factor)
        self.cross = AutoCorrelation(plan.hidden, time, plan.factor)
        self.mlp = _mlp(plan)
        self.decomposition = MovingAverage(plan.kernel)
        self.trend = CircularConv(plan.hidden, channels)

    def forward(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        season, first = self.decomposition(x + self.own(x, x))
        season, second = self.decomposition(season + self.cross(season, seen))
        season, third = self.decomposition(season + self.mlp(season))
        return season, self.trend(first + second + third)


class Autoformer(nn.Module):
    """An encoder of seasons, and a decoder that gathers trend and season of what comes.

    Wu et al., "Autoformer: Decomposition Transformers with Auto-Correlation for Long-Term Series
    Forecasting", NeurIPS 2021, section 3 and figure 1. The decoder begins with the last steps' own
    trend and season, the mean of what is seen for the trend to come and zeros for its season.
    Embeddings of the time of day, month and year are left out.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series.
        label: how many of the last steps the decoder begins with; half of them if None.
        hidden: features of a step.
        feed_forward: features inside the MLPs; four times ``hidden`` if None.
        layers: of the encoder.
        decoder_layers: of the decoder.
        kernel: of the moving averages.
        factor: how many delays are kept, in logarithms of the time.

    Raises:
        InputError: the decoder begins with more steps than are seen, the kernel has no middle, or
            the time has no such number of delays.
    """

    unknown: Tensor

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int,
        label: int | None = None,
        hidden: int = 512,
        feed_forward: int | None = None,
        layers: int = 2,
        decoder_layers: int = 1,
        kernel: int = 25,
        factor: float = 1.0,
    ) -> None:
        super().__init__()
        self.time, self.horizon = time, horizon
        self.label = time // 2 if label is None else label
        if not 0 <= self.label <= time:
            raise InputError(
                f"a decoder cannot begin with {self.label} of {time} steps",
                do=f"choose a label of 0 to {time} steps",
            )
        wide = 4 * hidden if feed_forward is None else feed_forward
        plan = Plan(hidden, wide, kernel, factor)
        self.register_buffer("unknown", torch.zeros(1, horizon, channels), persistent=False)
        self.decomposition = MovingAverage(kernel)
        self.embed_seen = CircularConv(channels, hidden)
        self.embed_season = CircularConv(channels, hidden)
        self.encoder = nn.Sequential(
            *(EncoderLayer(plan, time) for _ in range(layers)), SeasonNorm(hidden)
        )
        self.decoder = nn.ModuleList(
            DecoderLayer(plan, self.label + horizon, channels) for _ in range(decoder_layers)
        )
        self.head = nn.Sequential(SeasonNorm(hidden), nn.Linear(hidden, channels))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[1:2], (self.time,))
        begun, trend = self.decomposition(x)
        begun, trend = begun[:, self.time - self.label :], trend[:, self.time - self.label :]
        mean = x.mean(1, keepdim=True)
        trend = torch.cat([trend, mean.expand(-1, self.horizon, -1)], 1)
        unknown = self.unknown.expand(x.shape[0], -1, -1)
        season = self.embed_season(torch.cat([begun, unknown], 1))
        seen = self.encoder(self.embed_seen(x))
        for layer in self.decoder:
            season, more = layer(season, seen)
            trend = trend + more
        forecast = trend + self.head(season)
        return cast(Tensor, forecast[:, -self.horizon :])
