"""SOFTS: series talk to each other through one core."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from edgemix.models.series.inverted import Inverted


class Star(nn.Module):
    """Every series gives to a core and takes from it: STar Aggregate-Redistribute.

        z = W₂ gelu(W₁ x + b₁) + b₂
        o = Σ z_c softmax(z)_c over series c, for each feature of the core
        y = W₄ gelu(W₃ [x, o] + b₃) + b₄

    Han et al., "SOFTS", NeurIPS 2024, section 3, "STAR". The sum is what stochastic pooling gives
    on average; while it trains, each feature of the core is that of one series drawn with those
    probabilities (Zeiler and Fergus, "Stochastic Pooling", ICLR 2013).

    Shape: [n, channels, hidden] → the same.
    """

    def __init__(self, hidden: int, core: int) -> None:
        super().__init__()
        self.aggregate = nn.Sequential(
            nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, core)
        )
        self.redistribute = nn.Sequential(
            nn.Linear(hidden + core, hidden), nn.GELU(), nn.Linear(hidden, hidden)
        )

    def core(self, x: Tensor) -> Tensor:
        """[n, 1, core]: what all series together say."""
        given = self.aggregate(x).transpose(1, 2)
        weights = given.softmax(-1)
        if self.training:
            drawn = torch.multinomial(weights.flatten(0, 1), 1).reshape(*weights.shape[:2], 1)
            pooled = given.gather(-1, drawn)
        else:
            pooled = (given * weights).sum(-1, keepdim=True)
        return cast(Tensor, pooled.transpose(1, 2))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        core = self.core(x).expand(-1, x.shape[1], -1)
        return cast(Tensor, self.redistribute(torch.cat([x, core], -1)))


class Softs(Inverted):
    """Instance normalization, a token for each series, layers of STAR, a projection.

    Han et al., "SOFTS: Efficient Multivariate Time Series Forecasting with Series-Core Fusion",
    NeurIPS 2024, section 3. As in the authors' code each STAR stands where iTransformer has its
    attention, and no norm follows the last layer. The cost grows with the number of series, not
    with its square.

    Shape: [n, time, channels] → [n, horizon, channels], for any number of channels.

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        hidden: features of an embedded series.
        core: features of the core.
        layers: how many there are.
        feed_forward: features inside the MLPs; as many as ``hidden`` if None.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        hidden: int = 512,
        core: int = 128,
        layers: int = 2,
        feed_forward: int | None = None,
    ) -> None:
        super().__init__(
            time=time, horizon=horizon, mixer=partial(Star, hidden, core), hidden=hidden,
            layers=layers, feed_forward=feed_forward, norm=nn.Identity(),
        )  # fmt: skip
