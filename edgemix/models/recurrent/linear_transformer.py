"""The linear Transformer: a Transformer whose attention is a recurrence."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.recurrent.linear_attention import LinearAttention
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class LinearTransformerBlock(Assembled):
    """x ← norm(x + attention(x)), x ← norm(x + W₂ relu(W₁ x)): norms stand behind the sums.

    Katharopoulos et al., "Transformers are RNNs", ICML 2020, equation 1, as its code has it.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, heads: int, expand: int = 4) -> None:
        super().__init__()
        self.attention = LinearAttention(dim, heads, bias=True)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, expand * dim), nn.ReLU(), nn.Linear(expand * dim, dim)
        )
        self.norm2 = nn.LayerNorm(dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"attention": self.attention}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = self.norm1(x + run("attention", x))
        result: Tensor = self.norm2(x + self.mlp(x))
        return result


class LinearTransformer(Assembled):
    """Blocks, a last norm, a linear map.

    Katharopoulos et al., "Transformers are RNNs: Fast Autoregressive Transformers with Linear
    Attention", ICML 2020, section 4.2: for pictures what comes in is a pixel's embedding beside its
    position's, and what goes out are the parameters of a mixture of logistics.

    Shape: [batch, time, dim] → [batch, time, outputs].
    """

    def __init__(self, dim: int, depth: int, heads: int, outputs: int, expand: int = 4) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            [LinearTransformerBlock(dim, heads, expand) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        result: Tensor = self.head(self.norm(x))
        return result
