"""JustDense: one learned matrix over series where iTransformer has its attention."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn

from edgemix.models.series.inverted import Inverted
from edgemix.models.sizes import check_size


class DenseMixer(nn.Module):
    """y = M x + b over tokens: a mixing matrix that is learned, and the same for every input.

    Park et al., "JustDense: Just using Dense instead of Sequence Mixer for Time Series analysis",
    2025. Nothing else of the mixer is kept, such as maps of values and of results.

    Shape: [n, tokens, hidden] → the same.
    """

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.matrix = nn.Linear(tokens, tokens)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "tokens", x.shape[1:2], (self.tokens,))
        return cast(Tensor, self.matrix(x.transpose(1, 2))).transpose(1, 2)


class JustDense(Inverted):
    """The iTransformer with a dense layer over series for its attention.

    Park et al., "JustDense", 2025; Liu et al., "iTransformer", ICLR 2024. Unlike attention, the
    matrix knows which series is which.

    Shape: [n, time, channels] → [n, horizon, channels].

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        channels: series.
        hidden: features of an embedded series.
        layers: how many there are.
        feed_forward: features inside the MLPs; as many as ``hidden`` if None.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        channels: int,
        hidden: int = 512,
        layers: int = 2,
        feed_forward: int | None = None,
    ) -> None:
        super().__init__(
            time=time, horizon=horizon, mixer=partial(DenseMixer, channels), hidden=hidden,
            layers=layers, feed_forward=feed_forward, norm=nn.LayerNorm(hidden),
        )  # fmt: skip
