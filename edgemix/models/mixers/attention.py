"""Softmax self-attention over the positions of a feature map."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.sizes import check_heads


class HeadedMixer(nn.Module):
    """What attention's kinds share: queries, keys and values in heads, and a projection.

    All four are 1×1 convolutions. A kind says what it makes of queries, keys and values
    [n, heads, c / heads, h·w].

    Shape: [n, c, h, w] → [n, c, h, w], with h·w tokens.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__()
        check_heads(dim, heads)
        self.heads = heads
        self.qkv = nn.Conv2d(dim, 3 * dim, 1)
        self.proj = nn.Conv2d(dim, dim, 1)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The mixed values, in the shape of ``v``."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        q, k, v = in_heads(self.qkv(x), self.heads)
        result: Tensor = self.proj(self.mix(q, k, v).reshape(x.shape))
        return result


class Attention(HeadedMixer):
    """softmax(qᵀk / √d) v.

    Vaswani et al., "Attention Is All You Need", 2017, equation 1; on maps, as the last stages of
    CAFormer and EfficientFormer use it.
    """

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        return attended(q, k, v)


def in_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values [n, 3c, h, w], each as [n, heads, c / heads, h·w]."""
    n, wide, h, w = qkv.shape
    q, k, v = qkv.reshape(n, 3, heads, wide // 3 // heads, h * w).unbind(1)
    return q, k, v


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(qᵀk / √d) v of queries, keys and values [n, heads, d, tokens]: the same shape."""
    scale = float(q.shape[2]) ** -0.5
    weights = ((q.transpose(-2, -1) @ k) * scale).softmax(dim=-1)
    mixed: Tensor = v @ weights.transpose(-2, -1)
    return mixed
