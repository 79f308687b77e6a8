"""The cache-aware FastConformer: Conformer blocks in chunks, their past in caches."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgemix.models.recurrent.chunked_conv import ChunkedConv
from edgemix.models.recurrent.relative_attention import RelativeChunkedAttention
from edgemix.models.recurrent.subsampling import CausalSubsampling
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class ConformerConvolution(Assembled):
    """W₂ silu(norm(depthwise(a · sigmoid(b)))), [a, b] = W₁ x, the depthwise kernel causal.

    Gulati et al., "Conformer", Interspeech 2020, figure 2, with a layer norm for the batch norm, as
    Noroozi et al., ICASSP 2024, section 3, have it.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``chunk``.
    """

    def __init__(self, dim: int, kernel: int, chunk: int) -> None:
        super().__init__()
        self.chunk = chunk
        self.enter = nn.Linear(dim, 2 * dim)
        self.conv = ChunkedConv(dim, kernel, chunk=chunk, depthwise=True)
        self.leave = nn.Sequential(nn.LayerNorm(dim), nn.SiLU(), nn.Linear(dim, dim))

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"conv": self.conv}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        a, b = self.enter(x).chunk(2, -1)
        result: Tensor = self.leave(run("conv", a * torch.sigmoid(b)))
        return result


class ConformerBlock(Assembled):
    """Half a feed-forward step, attention, convolution, half a feed-forward step, a norm.

        x ← x + ½ FFN(x),  x ← x + MHSA(norm(x)),  x ← x + Conv(norm(x)),  y = norm(x + ½ FFN(x))

    Gulati et al., "Conformer", Interspeech 2020, equation 1; attention in chunks with a cache, and
    causal convolutions: Noroozi et al., "Stateful Conformer with Cache-Based Inference for
    Streaming Automatic Speech Recognition", ICASSP 2024, section 3.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``chunk``.
    """

    def __init__(
        self, dim: int, heads: int, *, chunk: int, reach: int, kernel: int = 9, expand: int = 4
    ) -> None:
        super().__init__()
        self.chunk = chunk
        self.first, self.second = _feed_forward(dim, expand), _feed_forward(dim, expand)
        self.norms = nn.ModuleList([nn.LayerNorm(dim) for _ in range(3)])
        self.attention = RelativeChunkedAttention(dim, heads, chunk=chunk, reach=reach)
        self.conv = ConformerConvolution(dim, kernel, chunk)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"attention": self.attention, "conv": self.conv}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        before_attention, before_conv, last = self.norms
        x = x + 0.5 * self.first(x)
        x = x + run("attention", before_attention(x))
        x = x + run("conv", before_conv(x))
        result: Tensor = last(x + 0.5 * self.second(x))
        return result


class FastConformer(Assembled):
    """Subsampling, Conformer blocks, and what a CTC decoder reads of every eighth frame.

    Noroozi et al., "Stateful Conformer with Cache-Based Inference for Streaming Automatic Speech
    Recognition", ICASSP 2024. A step takes a chunk's frames, eight for each position.

    Shape: [batch, time, features] → [batch, time / 8, classes].
    """

    def __init__(
        self, features: int, classes: int, *, dim: int, depth: int, heads: int, channels: int,
        chunk: int, reach: int, kernel: int = 9, expand: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = CausalSubsampling(features, dim, channels=channels, chunk=chunk)
        self.chunk, self.scale = self.embed.chunk, math.sqrt(dim)
        self.blocks = nn.ModuleList(
            [
                ConformerBlock(dim, heads, chunk=chunk, reach=reach, kernel=kernel, expand=expand)
                for _ in range(depth)
            ]
        )
        self.head = nn.Linear(dim, classes)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks: dict[str, Stepwise] = {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]
        return {"embed": self.embed, **blocks}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("embed", x) * self.scale
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        logits: Tensor = self.head(x)
        return logits


def _feed_forward(dim: int, expand: int) -> nn.Module:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, expand * dim), nn.SiLU(), nn.Linear(expand * dim, dim)
    )
