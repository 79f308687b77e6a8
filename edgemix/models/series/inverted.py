"""Forecasters with a token for each series: embedded whole, mixed with the others, projected."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from torch import Tensor, nn

from edgemix.models.series.scaling import standardize
from edgemix.models.sizes import check_size

Mixer = Callable[[], nn.Module]
"""Makes what mixes tokens [n, channels, hidden] with each other."""


class InvertedLayer(nn.Module):
    """A mixer of series, then an MLP on each, both beside a residual path and with a norm behind.

        h = norm₁(x + mixer(x)),  y = norm₂(h + W₂ gelu(W₁ h + b₁) + b₂)

    Liu et al., "iTransformer", ICLR 2024, section 3.2 and algorithm 1.

    Shape: [n, channels, hidden] → the same.
    """

    def __init__(self, mixer: Mixer, hidden: int, feed_forward: int) -> None:
        super().__init__()
        self.mixer = mixer()
        self.mixed_norm = nn.LayerNorm(hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, feed_forward), nn.GELU(), nn.Linear(feed_forward, hidden)
        )
        self.norm = nn.LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        mixed = self.mixed_norm(x + self.mixer(x))
        return cast(Tensor, self.norm(mixed + self.mlp(mixed)))


class Inverted(nn.Module):
    """Instance normalization, a linear embedding of each series, layers, a linear projection.

    Liu et al., "iTransformer", ICLR 2024, section 3.1, equation 1.

    Shape: [n, time, channels] → [n, horizon, channels], for any number of channels.

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        mixer: of the series, one for each layer.
        hidden: features of an embedded series.
        layers: how many there are.
        feed_forward: features inside the MLPs; as many as ``hidden`` if None.
        norm: what follows the last layer.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        mixer: Mixer,
        hidden: int,
        layers: int,
        feed_forward: int | None,
        norm: nn.Module,
    ) -> None:
        super().__init__()
        self.time = time
        wide = hidden if feed_forward is None else feed_forward
        self.embed = nn.Linear(time, hidden)
        self.layers = nn.Sequential(*(InvertedLayer(mixer, hidden, wide) for _ in range(layers)))
        self.norm = norm
        self.head = nn.Linear(hidden, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[1:2], (self.time,))
        series = standardize(x.transpose(1, 2))
        tokens = self.layers(self.embed(series.values))
        forecast = cast(Tensor, self.head(self.norm(tokens)))
        return series.restore(forecast).transpose(1, 2)
