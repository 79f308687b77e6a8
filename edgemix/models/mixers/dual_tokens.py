"""Local tokens of a convolution that listen to global tokens with places (DualToken-ViT)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.mixers.token_mlp import TokenMlp
from edgemix.models.sizes import check_heads, check_size


class DualTokens(nn.Module):
    """Convolution finds what is near, global tokens carry what is far, attention joins both.

        l = x + W₂ GELU(W₁ (K ∗ x)),    s = l, averaged and convolved by halves,
        g = M(α s + (1 − α) G),         y = l + W softmax(q(l)ᵀ k(g) / √d) v(g).

    G are learned tokens, as many as s has positions, so that each has its place; M mixes tokens
    and then channels, each beside a residual path. Chu et al., "DualToken-ViT: Position-aware
    Efficient Vision Transformer with Dual Token Fusion", 2023, section 3. There, blocks hand
    their g on to the next as its G; a block of this skeleton hands on a map alone, and learns a G
    of its own.

    Shape: [n, c, h, w] → [n, c, h, w] with the map that was said.

    Args:
        dim: c.
        height: of the map.
        width: of the map.
        heads: that c divides into.
        halvings: of the map on the way to the global tokens.
        share: α.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``, or the map does not halve so often; of the
            input, where its map is another.
    """

    def __init__(
        self, dim: int, height: int, width: int, heads: int = 2, halvings: int = 1,
        share: float = 0.5,
    ) -> None:  # fmt: skip
        super().__init__()
        check_heads(dim, heads)
        if height % 2**halvings or width % 2**halvings:
            raise InputError(f"a map of {height}×{width} does not halve {halvings} times")
        self.size, self.heads, self.share = (height, width), heads, share
        few = (height >> halvings, width >> halvings)
        self.local = nn.Sequential(_depthwise(dim), ChannelMlp(dim, activation=nn.GELU))
        self.shrink = nn.Sequential(
            *(nn.Sequential(nn.AvgPool2d(2), _depthwise(dim)) for _ in range(halvings))
        )
        self.tokens = nn.Parameter(torch.randn(dim, *few) * 0.02)
        self.mix_tokens, self.mix_channels = TokenMlp(dim, few[0] * few[1]), ChannelMlp(dim)
        self.queries, self.pairs = nn.Conv2d(dim, dim, 1), nn.Conv2d(dim, 2 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        check_size(self, "maps", x.shape[2:], self.size)
        x = x + self.local(x)
        tokens = self.share * self.shrink(x) + (1 - self.share) * self.tokens
        tokens = tokens + self.mix_tokens(tokens)
        tokens = tokens + self.mix_channels(tokens)
        maps = (self.queries(x), *self.pairs(tokens).chunk(2, dim=1))
        q, k, v = (y.reshape(len(x), self.heads, y.shape[1] // self.heads, -1) for y in maps)
        result: Tensor = x + self.proj(attended(q, k, v).reshape(x.shape))
        return result


def _depthwise(dim: int) -> nn.Conv2d:
    return nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
