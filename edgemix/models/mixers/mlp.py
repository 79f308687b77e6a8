"""The channel mixer: a two-layer perceptron at every position."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ChannelMlp(nn.Module):
    """y = W₂ σ(W₁ x) with 1×1 convolutions.

    In a token mixer's place too, it makes a block two of LIT's early ones, which mix no tokens. A
    strided embedding stands for LIT's deformable token merging, which reads at computed places.
    Pan et al., "Less is More: Pay Less Attention in Vision Transformers", AAAI 2022, section 3.

    Shape: [n, c, h, w] → [n, c, h, w].
    """

    def __init__(
        self,
        dim: int,
        ratio: float = 2.0,
        activation: Callable[[], nn.Module] = nn.ReLU,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.expand = nn.Conv2d(dim, hidden, 1, bias=bias)
        self.activation = activation()
        self.contract = nn.Conv2d(hidden, dim, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.contract(self.activation(self.expand(x)))
        return result
