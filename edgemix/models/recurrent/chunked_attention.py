"""Attention within a chunk and to a cache of what came before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.sizes import check_heads
from edgemix.streaming.protocol import State, Stepwise, held, zeros


class ChunkedAttention(Stepwise):
    """Every position of a chunk attends to its chunk and to the ``reach`` positions before it.

    Noroozi et al., "Stateful Conformer with Cache-Based Inference for Streaming Automatic Speech
    Recognition", ICASSP 2024, section 3: chunk-aware look-ahead, keys and values of the past in a
    cache. Cache entries that nothing has filled yet weigh nothing.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``chunk``.
    """

    def __init__(self, dim: int, heads: int = 2, *, chunk: int = 4, reach: int = 8) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads, self.size, self.chunk, self.reach = heads, dim // heads, chunk, reach
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def initial_state(self, batch: int = 1) -> State:
        """``keys`` and ``values`` of the past, and which of them are ``filled``."""
        past = (self.heads, self.reach, self.size)
        return {
            "keys": zeros(batch, *past), "values": zeros(batch, *past),
            "filled": zeros(batch, 1, 1, self.reach),
        }  # fmt: skip

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        assert self.chunk is not None
        q, k, v = self._split(x)
        keys = torch.cat([held(state, "keys"), k], 2)
        values = torch.cat([held(state, "values"), v], 2)
        filled = torch.cat([held(state, "filled"), torch.ones(len(x), 1, 1, self.chunk)], 3)
        y = self._attended(q, keys, values, filled)
        after = {
            "keys": keys[:, :, self.chunk :], "values": values[:, :, self.chunk :],
            "filled": filled[..., self.chunk :],
        }  # fmt: skip
        return y, after

    def forward(self, x: Tensor) -> Tensor:
        """The whole sequence at once, under a mask."""
        assert self.chunk is not None
        q, k, v = self._split(x)
        chunk = torch.arange(x.shape[1]) // self.chunk
        first = chunk * self.chunk - self.reach
        at = torch.arange(x.shape[1])
        seen = (at[None] >= first[:, None]) & (chunk[None] <= chunk[:, None])
        return self._attended(q, k, v, seen.float())

    def _split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (p.unflatten(-1, (self.heads, self.size)).transpose(1, 2) for p in parts)
        return q * self.size**-0.5, k, v

    def _attended(self, q: Tensor, k: Tensor, v: Tensor, seen: Tensor) -> Tensor:
        scores = self._scores(q, k)
        # A softmax whose weights are masked, not its scores: no number has to stand for −∞.
        weights = torch.exp(scores - scores.amax(-1, keepdim=True)) * seen
        mixed = (weights / weights.sum(-1, keepdim=True)) @ v
        result: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return result

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.transpose(-2, -1)
