"""The Temporal Fusion Transformer: chosen variables, an LSTM for what is near, attention beyond."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.series.gated_residual import GatedResidual, GatedSkip, VariableSelection
from edgemix.models.sizes import check_size


class InterpretableAttention(nn.Module):
    """The mean of several heads' weights, and values that all heads share.

        y = W (mean over heads of softmax(qₕ kₕᵀ / √d)) (V x + c) + b

    Lim et al., "Temporal Fusion Transformers", 2021, section 4.4, equations 13 to 16. Steps to come
    look at themselves and at all that is before them. Only their results are computed, which no
    later layer needs of those that are seen.

    Shape: [n, time + horizon, hidden] → [n, horizon, hidden].

    Raises:
        InputError: the features do not divide into the heads.
    """

    earlier: Tensor

    def __init__(self, hidden: int, heads: int, time: int, horizon: int) -> None:
        super().__init__()
        if hidden % heads:
            raise InputError(
                f"{hidden} features do not divide into {heads} heads",
                do="choose features that the number of heads divides",
            )
        self.heads, self.horizon = heads, horizon
        self.queries = nn.Linear(hidden, hidden)
        self.keys = nn.Linear(hidden, hidden)
        self.values = nn.Linear(hidden, hidden // heads)
        self.proj = nn.Linear(hidden // heads, hidden)
        earlier = torch.ones(horizon, time + horizon).tril(time)
        self.register_buffer("earlier", earlier, persistent=False)

    def weights(self, x: Tensor) -> Tensor:
        """[n, horizon, time + horizon]: the mean over heads."""
        q, k = self._parted(self.queries(x[:, -self.horizon :])), self._parted(self.keys(x))
        # The softmax's weights are masked, not its scores: no number has to stand for −∞.
        kept = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1) * self.earlier
        return cast(Tensor, (kept / kept.sum(-1, keepdim=True)).mean(1))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return cast(Tensor, self.proj(self.weights(x) @ self.values(x)))

    def _parted(self, x: Tensor) -> Tensor:
        """[n, heads, steps, d]."""
        n, steps, hidden = x.shape
        return x.reshape(n, steps, self.heads, hidden // self.heads).transpose(1, 2)


class Tft(nn.Module):
    """Variable selection, an LSTM over what is seen and one over what comes, attention, quantiles.

    Lim et al., "Temporal Fusion Transformers for Interpretable Multi-horizon Time Series
    Forecasting", International Journal of Forecasting, 2021, section 4 and figure 2. Static
    covariates are left out, and with them the contexts of the gated networks. Of what is known
    ahead there is but one variable: how far a step is from the last one that was seen, in horizons.
    It is a constant of the graph, and beside the series in what is seen.

    Shape: [n, time, channels] → [n, horizon, quantiles]: of the first series.

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series, the first of which is forecast.
        hidden: features of a step.
        heads: of the attention.
        quantiles: how many are forecast.

    Raises:
        InputError: the features do not divide into the heads.
    """

    distances: Tensor

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int,
        hidden: int = 160,
        heads: int = 4,
        quantiles: int = 3,
    ) -> None:
        super().__init__()
        self.time, self.horizon = time, horizon
        steps = torch.arange(1 - time, horizon + 1) / horizon
        self.register_buffer("distances", steps[None, :, None], persistent=False)
        self.select_seen = VariableSelection(channels + 1, hidden)
        self.select_known = VariableSelection(1, hidden)
        self.encoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.decoder = nn.LSTM(hidden, hidden, batch_first=True)
        self.local_skip = GatedSkip(hidden, hidden)
        self.enrich = GatedResidual(hidden, hidden, hidden)
        self.attention = InterpretableAttention(hidden, heads, time, horizon)
        self.attention_skip = GatedSkip(hidden, hidden)
        self.feed_forward = GatedResidual(hidden, hidden, hidden)
        self.skip = GatedSkip(hidden, hidden)
        self.head = nn.Linear(hidden, quantiles)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "series", x.shape[1:2], (self.time,))
        distances = self.distances.expand(x.shape[0], -1, -1)
        past, future = distances[:, : self.time], distances[:, self.time :]
        seen = self.select_seen(torch.cat([x, past], -1))
        known = self.select_known(future)
        before, memory = self.encoder(seen)
        after, _ = self.decoder(known, memory)
        local = self.local_skip(torch.cat([seen, known], 1), torch.cat([before, after], 1))
        enriched = self.enrich(local)
        attended = self.attention_skip(enriched[:, self.time :], self.attention(enriched))
        decided = self.skip(local[:, self.time :], self.feed_forward(attended))
        return cast(Tensor, self.head(decided))
