"""Linear attention whose result is normed in place of divided (TransNormer)."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.mixers.attention import HeadedMixer


class NormAttention(HeadedMixer):
    """y = RMSNorm(φ(q) (φ(k)ᵀ v)) with φ = elu + 1.

    A divisor that may be near zero has unbounded gradients; a norm has not. Qin et al., "The Devil
    in Linear Transformer", EMNLP 2022, section 4.1.
    """

    def __init__(self, dim: int, heads: int = 2) -> None:
        super().__init__(dim, heads)
        self.norm = nn.RMSNorm(dim // heads, eps=1e-5)

    def mix(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:  # noqa: D102
        q, k = (nn.functional.elu(x) + 1 for x in (q, k))
        context = k @ v.transpose(-2, -1)
        mixed: Tensor = self.norm(q.transpose(-2, -1) @ context / q.shape[-1])
        return mixed.transpose(-2, -1)
