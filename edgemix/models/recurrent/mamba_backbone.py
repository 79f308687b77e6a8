"""Mamba as a language model has it: blocks behind norms and beside residual paths."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.recurrent.mamba import Mamba
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class MambaBackbone(Assembled):
    """x ← x + Mamba(rms(x)) a block, a last norm, and logits by the matrix of the embedding.

    Gu, Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces", 2023, section 3.4
    and appendix E.2. A program takes numbers, not indices: what comes in are rows of
    ``head.weight`` that were looked up outside, so the embedding, which is tied to the head, is
    counted once.

    Shape: [batch, time, dim] → [batch, time, vocabulary].
    """

    def __init__(
        self, dim: int, depth: int, vocabulary: int, *, expand: int = 2, states: int = 16,
        kernel: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.norms = nn.ModuleList([nn.RMSNorm(dim, eps=1e-5) for _ in range(depth)])
        self.mixers = nn.ModuleList(
            [Mamba(dim, expand=expand, states=states, kernel=kernel) for _ in range(depth)]
        )
        self.last_norm = nn.RMSNorm(dim, eps=1e-5)
        self.head = nn.Linear(dim, vocabulary, bias=False)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {f"mixer_{i}": m for i, m in enumerate(self.mixers)}  # type: ignore[misc]

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i, norm in enumerate(self.norms):
            x = x + run(f"mixer_{i}", norm(x))
        logits: Tensor = self.head(self.last_norm(x))
        return logits
