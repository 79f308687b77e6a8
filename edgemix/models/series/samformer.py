"""SAMformer: one attention among series, and one linear map over time."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from edgemix.models.series.revin import RevIN
from edgemix.models.sizes import check_size


class ChannelWiseAttention(nn.Module):
    """softmax(q kᵀ / √d) v: one head, the tokens are series, the values are as long as they are.

    Ilbert et al., "SAMformer", ICML 2024, section 3. The product of the values' matrix and the
    output's is one matrix, as in the authors' code.

    Shape: [n, channels, time] → the same.
    """

    def __init__(self, time: int, hidden: int) -> None:
        super().__init__()
        self.queries = nn.Linear(time, hidden)
        self.keys = nn.Linear(time, hidden)
        self.values = nn.Linear(time, time)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k = self.queries(x), self.keys(x)
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return cast(Tensor, weights @ self.values(x))


class Samformer(nn.Module):
    """RevIN, attention among series beside a residual path, one linear map to the horizon.

        y = W (x + attention(x)) + b, between both ways of RevIN

    Ilbert et al., "SAMformer: Unlocking the Potential of Transformers in Time Series Forecasting
    with Sharpness-Aware Minimization and Channel-Wise Attention", ICML 2024, section 3. How it is
    trained, which the name speaks of, is no part of the model.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series.
        hidden: features of queries and keys.
    """

    def __init__(self, *, time: int, horizon: int, channels: int, hidden: int = 16) -> None:
        super().__init__()
        self.time = time
        self.revin = RevIN(channels)
        self.attention = ChannelWiseAttention(time, hidden)
        self.head = nn.Linear(time, horizon)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[1:2], (self.time,))
        values, series = self.revin(x.transpose(1, 2))
        forecast = self.head(values + self.attention(values))
        return self.revin.restore(forecast, series).transpose(1, 2)
