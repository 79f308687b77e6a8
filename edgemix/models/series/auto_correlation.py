"""Auto-correlation: attention to the delays by which a series is most like another."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError


class AutoCorrelation(nn.Module):
    """Values at the delays by which queries are most like keys, weighed by how much they are.

        r(τ) = mean over features of Σₜ q[t + τ] k[t],  y[t] = Σ softmax(r)(τ) v[t + τ]

    over the ⌊c log time⌋ delays τ of largest r, all steps modulo the time.

    Wu et al., "Autoformer", NeurIPS 2021, section 3.2, equations 5 and 6. Each sample has delays of
    its own, as the authors' code has it at inference; while it trains it takes those that are best
    on average over a batch. Both means are over all heads, so heads make no difference, and are not
    parted. r is the sum of the wrapped diagonals of k qᵀ, and y a product with the matrix whose
    wrapped diagonals are the weights: nothing moves by a number that is only known when it runs.

    Shape: [n, time, features], [n, source, features] → [n, time, features]. Keys and values are cut
    to the time, or have zeros behind.

    Raises:
        InputError: the time has no such number of delays.
    """

    places: Tensor

    def __init__(self, features: int, time: int, factor: float) -> None:
        super().__init__()
        self.time = time
        self.delays = int(factor * math.log(time))
        if not 1 <= self.delays <= time:
            raise InputError(
                f"{factor} times the logarithm of {time} steps are {self.delays} delays, of which "
                f"there are 1 to {time}",
                do="choose another factor",
            )
        self.register_buffer("places", torch.arange(time), persistent=False)
        self.queries = nn.Linear(features, features)
        self.keys = nn.Linear(features, features)
        self.values = nn.Linear(features, features)
        self.proj = nn.Linear(features, features)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        """[n, time]: one for each delay, most of them zero."""
        alike = diagonals(k @ q.transpose(1, 2)).sum(1) / q.shape[2]
        if self.training:
            best = alike.mean(0).topk(self.delays).indices.expand(alike.shape[0], -1)
            kept = alike.gather(1, best)
        else:
            kept, best = alike.topk(self.delays, dim=-1)
        # Places are compared, not values: those of a quantized program are rounded, and may tie.
        at = (best[..., None] == self.places).to(kept.dtype)
        return (kept.softmax(-1)[:, None] @ at)[:, 0]

    def forward(self, x: Tensor, source: Tensor) -> Tensor:  # noqa: D102
        k, v = self._fitted(self.keys(source)), self._fitted(self.values(source))
        weights = self.weights(self.queries(x), k)
        return cast(Tensor, self.proj(circulant(weights) @ v))

    def _fitted(self, x: Tensor) -> Tensor:
        missing = self.time - x.shape[1]
        return functional.pad(x, (0, 0, 0, missing)) if missing > 0 else x[:, : self.time]


def diagonals(x: Tensor) -> Tensor:
    """y[t, τ] = x[t, (t + τ) mod time] of matrices [n, time, time].

    Two copies side by side, read in rows that are longer by one: each begins one step later. What
    is put behind, so that the last row is whole, is not in the result.
    """
    n, time, _ = x.shape
    twice = torch.cat([x, x], -1).flatten(1)
    rows = torch.cat([twice, twice[:, :time]], 1).reshape(n, time, 2 * time + 1)
    return rows[..., :time]


def circulant(x: Tensor) -> Tensor:
    """y[t, s] = x[(s - t) mod time] of weights [n, time].

    Copies one behind the other, read in rows that are shorter than two of them by one.
    """
    n, time = x.shape
    copies = x[:, None].expand(n, 2 * time - 1, time).reshape(n, time, 2 * time - 1)
    return copies[..., :time]
