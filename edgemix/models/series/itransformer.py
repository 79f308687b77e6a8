"""iTransformer: attention among series, each of which is one token."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.series.inverted import Inverted


class VariateAttention(nn.Module):
    """softmax(q kᵀ / √d) v in heads of d features, the tokens of which are series.

    Liu et al., "iTransformer", ICLR 2024, section 3.2, "Self-attention"; Vaswani et al.,
    "Attention Is All You Need", 2017, equation 1.

    Shape: [n, channels, hidden] → the same.

    Raises:
        InputError: the features do not divide into the heads.
    """

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        if hidden % heads:
            raise InputError(
                f"{hidden} features do not divide into {heads} heads",
                do="choose features that the number of heads divides",
            )
        self.heads = heads
        self.queries = nn.Linear(hidden, hidden)
        self.keys = nn.Linear(hidden, hidden)
        self.values = nn.Linear(hidden, hidden)
        self.proj = nn.Linear(hidden, hidden)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = (self._parted(part(x)) for part in (self.queries, self.keys, self.values))
        weights = (q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5).softmax(-1)
        return cast(Tensor, self.proj((weights @ v).transpose(1, 2).reshape(x.shape)))

    def _parted(self, x: Tensor) -> Tensor:
        """[n, heads, channels, d]."""
        n, channels, hidden = x.shape
        return x.reshape(n, channels, self.heads, hidden // self.heads).transpose(1, 2)


class ITransformer(Inverted):
    """Instance normalization, a token for each series, layers of attention, a projection.

    Liu et al., "iTransformer: Inverted Transformers Are Effective for Time Series Forecasting",
    ICLR 2024, section 3, with the norm that the authors' code has behind the last layer. Tokens
    that say what time it is are left out. No layer knows which series is which: those in another
    order have their forecasts in that order.

    Shape: [n, time, channels] → [n, horizon, channels], for any number of channels.

    Args:
        time: steps that are seen.
        horizon: steps that are forecast.
        hidden: features of an embedded series.
        heads: of the attention.
        layers: how many there are.
        feed_forward: features inside the MLPs; as many as ``hidden`` if None.

    Raises:
        InputError: the features do not divide into the heads.
    """

    def __init__(
        self,
        *,
        time: int,
        horizon: int,
        hidden: int = 512,
        heads: int = 8,
        layers: int = 2,
        feed_forward: int | None = None,
    ) -> None:
        super().__init__(
            time=time, horizon=horizon, mixer=partial(VariateAttention, hidden, heads),
            hidden=hidden, layers=layers, feed_forward=feed_forward, norm=nn.LayerNorm(hidden),
        )  # fmt: skip
