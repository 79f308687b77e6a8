"""Attention in chunks that knows how far apart two positions are."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models.recurrent.chunked_attention import ChunkedAttention


class RelativeChunkedAttention(ChunkedAttention):
    """Chunked attention whose scores are ((q_i + u) · k_j + (q_i + v) · W r_{i−j}) / √d.

    Dai et al., "Transformer-XL", ACL 2019, section 3.3, with r the sinusoids of a distance; chunks
    and cache as in :class:`~edgemix.models.recurrent.chunked_attention.ChunkedAttention`.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``chunk``.

    Raises:
        InputError: the channels do not divide into heads, or not into sines and cosines.
    """

    places: Tensor

    def __init__(self, dim: int, heads: int = 2, *, chunk: int = 4, reach: int = 8) -> None:
        super().__init__(dim, heads, chunk=chunk, reach=reach)
        if dim % 2:
            raise InputError(f"{dim} channels are no pairs of a sine and a cosine")
        self.place = nn.Parameter(torch.empty(dim, dim))
        nn.init.kaiming_uniform_(self.place, a=5**0.5)
        self.content_bias = nn.Parameter(torch.zeros(heads, 1, self.size))
        self.place_bias = nn.Parameter(torch.zeros(heads, 1, self.size))
        self.register_buffer(
            "places", torch.zeros(heads, reach + 2 * chunk - 1, self.size), persistent=False
        )
        self.eval().train()

    def train(self, mode: bool = True) -> RelativeChunkedAttention:
        """In evaluation what a step's distances stand for is a constant."""
        if not mode:
            assert self.chunk is not None
            with torch.no_grad():
                self.places = self._places(self.chunk, self.reach + self.chunk)
        super().train(mode)
        return self

    def _load_from_state_dict(self, *args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        super()._load_from_state_dict(*args, **kwargs)
        self.train(self.training)

    def _places(self, queries: int, keys: int) -> Tensor:
        """W r [heads, keys + queries − 1, size], from the greatest distance to the least."""
        distance = torch.arange(keys - 1, -queries, -1.0, device=self.place.device)
        pairs = torch.arange(0, len(self.place), 2, device=distance.device)
        angle = distance[:, None] * torch.exp(-pairs * math.log(1e4) / len(self.place))
        waves = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)
        found = functional.linear(waves, self.place)
        return torch.unflatten(found, -1, (self.heads, self.size)).transpose(0, 1)

    def _scores(self, q: Tensor, k: Tensor) -> Tensor:
        scale, queries, keys = self.size**-0.5, q.shape[2], k.shape[2]
        is_step = not self.training and self.places.shape[1] == queries + keys - 1
        places = self.places if is_step else self._places(queries, keys)
        asking = q + scale * self.place_bias
        # A linear map for each head, not one product: what a head's map is made of is a weight.
        by_place = torch.cat(
            [functional.linear(asking[:, i : i + 1], places[i]) for i in range(self.heads)], 1
        )
        # Row i of it starts at the first key's distance from query i.
        first = range(queries - 1, -1, -1)
        rows = [by_place[:, :, i : i + 1, at : at + keys] for i, at in enumerate(first)]
        by_content: Tensor = (q + scale * self.content_bias) @ k.transpose(-2, -1)
        return by_content + torch.cat(rows, 2)
