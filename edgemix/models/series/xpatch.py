"""xPatch: a linear stream for the trend of series and one of convolutions for their season."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models.series.patches import Patches
from edgemix.models.series.revin import RevIN
from edgemix.models.sizes import check_size


def averages(time: int, smoothing: float) -> Tensor:
    """The matrix [time, time] that gives a series' exponential moving averages.

        s₀ = x₀,  sₜ = α xₜ + (1 - α) sₜ₋₁

    Stitsyuk and Choi, "xPatch", AAAI 2025, section 3.1. Every average is a weighted sum of what was
    seen so far, so all of them are one product with constants.
    """
    lags = torch.arange(time)[:, None] - torch.arange(time)[None, :]
    kept = torch.pow(1.0 - smoothing, lags.clamp(min=0).double())
    first = torch.arange(time) == 0
    weights = torch.where(first, kept, smoothing * kept)
    return torch.where(lags >= 0, weights, torch.zeros(())).float()


class Decomposition(nn.Module):
    """Series as trend and season: exponential moving averages, and what they leave.

    Stitsyuk and Choi, "xPatch", AAAI 2025, section 3.1.

    Shape: [n, channels, time] → the same, twice.

    Args:
        time: steps of the series.
        smoothing: α, the weight of the newest step.

    Raises:
        InputError: α is no weight.
    """

    averages: Tensor

    def __init__(self, time: int, smoothing: float) -> None:
        super().__init__()
        if not 0.0 < smoothing < 1.0:
            raise InputError(
                f"a smoothing of {smoothing} is no weight of an average",
                do="choose one between 0 and 1",
            )
        self.register_buffer("averages", averages(time, smoothing), persistent=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        trend = functional.linear(x, self.averages)
        return trend, x - trend


class TrendStream(nn.Module):
    """Two linear maps, each with a mean of neighbouring features and a norm; one more to the end.

        z = norm(pool(W₁ x + b₁)),  z' = norm(pool(W₂ z + b₂)),  y = W₃ z' + b₃

    of 4, 2, 1 and 1/2 times the horizon's features. No activation: the trend stays linear but for
    the norms.

    Stitsyuk and Choi, "xPatch", AAAI 2025, section 3.2, "linear stream".

    Shape: [n, channels, time] → [n, channels, horizon].
    """

    def __init__(self, time: int, horizon: int) -> None:
        super().__init__()
        half = horizon // 2
        self.layers = nn.Sequential(
            nn.Linear(time, 4 * horizon), nn.AvgPool1d(2), nn.LayerNorm(2 * horizon),
            nn.Linear(2 * horizon, horizon), nn.AvgPool1d(2), nn.LayerNorm(half),
            nn.Linear(half, horizon),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.layers(x))


class SeasonStream(nn.Module):
    """Patches, a convolution inside each of them, one across them, an MLP.

        p = BN(gelu(W patch + b))
        q = BN(gelu(D ∗ p)) + W' p + b'
        r = BN(gelu(P ∗ q)),  y = W₂ gelu(W₁ r + b₁) + b₂

    The patches are the channels of the convolutions: D is depthwise with as many taps and as long a
    stride as a patch has steps, P is pointwise. The last step is repeated for one stride, so that
    the end of the series is in as many patches as its middle.

    Stitsyuk and Choi, "xPatch", AAAI 2025, section 3.2, "non-linear stream". The series of a sample
    are the rows of its maps, where the authors' code makes samples of them; numbers are the same.

    Shape: [n, channels, time] → [n, channels, horizon].

    Raises:
        InputError: the patches do not end where the series does.
    """

    def __init__(self, time: int, horizon: int, patch: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.patches = Patches(time + stride, patch, patch * patch, stride)
        count = self.patches.count
        self.embed_norm = nn.BatchNorm2d(count)
        self.depthwise = nn.Sequential(
            nn.Conv2d(count, count, (1, patch), (1, patch), groups=count),
            nn.GELU(),
            nn.BatchNorm2d(count),
        )
        self.residual = nn.Linear(patch * patch, patch)
        self.pointwise = nn.Sequential(nn.Conv2d(count, count, 1), nn.GELU(), nn.BatchNorm2d(count))
        self.head = nn.Sequential(
            nn.Linear(count * patch, 2 * horizon), nn.GELU(), nn.Linear(2 * horizon, horizon)
        )

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        longer = torch.cat([x, *([x[..., -1:]] * self.stride)], -1)
        maps = self.embed_norm(functional.gelu(self.patches(longer)).transpose(1, 2))
        mixed = self.pointwise(self.depthwise(maps) + self.residual(maps))
        return cast(Tensor, self.head(mixed.transpose(1, 2).flatten(2)))


class XPatch(nn.Module):
    """RevIN, trend and season, a stream for each, one linear map of both forecasts.

    Stitsyuk and Choi, "xPatch: Dual-Stream Time Series Forecasting with Exponential Seasonal-Trend
    Decomposition", AAAI 2025, section 3. Series share all weights but those of RevIN.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series.
        patch: steps of a patch.
        stride: from one patch to the next.
        smoothing: α of the moving averages, the weight of the newest step.

    Raises:
        InputError: the patches do not end where the series does, the horizon is a single step, or
            α is no weight.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int,
        patch: int = 16,
        stride: int = 8,
        smoothing: float = 0.3,
    ) -> None:
        super().__init__()
        if horizon < 2:
            raise InputError(
                f"a horizon of {horizon} has no half, which the trend's stream is as wide as",
                do="choose a horizon of 2 steps or more",
            )
        self.time = time
        self.revin = RevIN(channels)
        self.decomposition = Decomposition(time, smoothing)
        self.trend = TrendStream(time, horizon)
        self.season = SeasonStream(time, horizon, patch, stride)
        self.head = nn.Linear(2 * horizon, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[1:2], (self.time,))
        values, series = self.revin(x.transpose(1, 2))
        trend, season = self.decomposition(values)
        forecast = self.head(torch.cat([self.season(season), self.trend(trend)], -1))
        return self.revin.restore(forecast, series).transpose(1, 2)
