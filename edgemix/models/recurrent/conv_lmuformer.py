"""LMUFormer layer by layer as it was published: five convolutions, one memory, a channel mixer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.average import RunningAverage
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.delay import Delay
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class ConvPatchEmbedding(Assembled):
    """Four times BN(relu(conv(x))), then x + conv(x), every convolution of three taps.

    Liu, Datta, Li, Beerel, "LMUFormer", ICLR 2024, section 4.1 and figure 2. The published
    convolutions read one position ahead each; these are the same weights five steps later.

    Shape: [batch, time, features] → [batch, time, dim].
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        widths = (features, dim, dim, dim)
        self.convs = nn.ModuleList([CausalConv(width, 3, dim, bias=False) for width in widths])
        self.norms = nn.ModuleList([FeatureNorm(dim) for _ in widths])
        self.place = CausalConv(dim, 3, dim, bias=False)
        self.wait = Delay(dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        found: dict[str, Stepwise] = {f"conv_{i}": c for i, c in enumerate(self.convs)}  # type: ignore[misc]
        return {**found, "place": self.place, "wait": self.wait}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i, norm in enumerate(self.norms):
            x = norm(torch.relu(run(f"conv_{i}", x)))
        return run("wait", x) + run("place", x)


class ConvLMUBlock(Assembled):
    """x ← x + BN(P relu(W [m, x])), m the memory of relu(U x); x ← x + relu(BN(...)).

    Liu, Datta, Li, Beerel, "LMUFormer", ICLR 2024, section 4.2 and figure 1: one channel of memory,
    as many coefficients as features. The channel mixer is BN and GELU, then BN and ReLU.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, order: int, window: float, expand: int) -> None:
        super().__init__()
        self.encode = nn.Linear(dim, 1)
        self.memory = LegendreMemory(1, order, window)
        self.mix = nn.Linear(order + dim, dim)
        self.proj = nn.Sequential(nn.Linear(dim, dim), FeatureNorm(dim))
        self.mlp = nn.Sequential(
            nn.Linear(dim, expand * dim), FeatureNorm(expand * dim), nn.GELU(),
            nn.Linear(expand * dim, dim), FeatureNorm(dim), nn.ReLU(),
        )  # fmt: skip

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"memory": self.memory}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        memory = run("memory", torch.relu(self.encode(x)))
        x = x + self.proj(torch.relu(self.mix(torch.cat([memory, x], -1))))
        mixed: Tensor = self.mlp(x)
        return x + mixed


class ConvLMUFormer(Assembled):
    """Patch embedding, blocks, a running average, a classifier.

    Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre
    Memory Units", ICLR 2024, figure 1. The paper averages over the whole sequence; a stream has no
    end, so the average here runs. :class:`~edgemix.models.recurrent.lmuformer.LMUFormer` is the
    lighter plan of the same parts that the keyword spotters have.

    Shape: [batch, time, features] → [batch, time, classes].
    """

    def __init__(
        self, features: int, classes: int, *, dim: int, depth: int = 1, order: int, window: float,
        expand: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = ConvPatchEmbedding(features, dim)
        self.blocks = nn.ModuleList(
            [ConvLMUBlock(dim, order, window, expand) for _ in range(depth)]
        )
        self.average = RunningAverage(dim, window)
        self.head = nn.Linear(dim, classes)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks: dict[str, Stepwise] = {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]
        return {"embed": self.embed, **blocks, "average": self.average}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("embed", x)
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        logits: Tensor = self.head(run("average", x))
        return logits
