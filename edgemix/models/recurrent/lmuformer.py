"""LMUFormer: Legendre memory mixes the tokens, convolutions embed them and mix the channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.average import RunningAverage
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class LMUMixer(Assembled):
    """u = relu(U x), m' = Ā m + B̄ u, y = W [m', x]: the memory as a token mixer.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, channels: int, order: int, window: float) -> None:
        super().__init__()
        self.encode = nn.Linear(dim, channels)
        self.norm_in = FeatureNorm(channels)
        self.memory = LegendreMemory(channels, order, window)
        self.mix = nn.Linear(channels * order + dim, dim)
        self.norm = FeatureNorm(dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"memory": self.memory}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        memory = run("memory", torch.relu(self.norm_in(self.encode(x))))
        return torch.relu(self.norm(self.mix(torch.cat([memory, x], -1))))


class LMUFormer(Assembled):
    """Causal convolutions, blocks of LMU mixer and channel mixer, a running average, a classifier.

    Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre
    Memory Units", ICLR 2024, figure 1. The paper averages over the whole sequence; a stream has no
    end, so the average here runs.

    Shape: [batch, time, features] → [batch, time, classes].
    """

    def __init__(
        self, features: int, classes: int, *, dim: int = 64, depth: int = 1, channels: int = 16,
        order: int = 8, window: float = 32.0, expand: int = 2, average: float = 16.0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = nn.ModuleList([CausalConv(features, 5, dim), CausalConv(dim, 3, dim)])
        self.norms = nn.ModuleList([FeatureNorm(dim), FeatureNorm(dim)])
        self.mixers = nn.ModuleList([LMUMixer(dim, channels, order, window) for _ in range(depth)])
        self.mlps = nn.ModuleList([_mlp(dim, expand) for _ in range(depth)])
        self.average = RunningAverage(dim, average)
        self.head = nn.Linear(dim, classes)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        found = {f"embed_{i}": m for i, m in enumerate(self.embed)}
        found |= {f"mixer_{i}": m for i, m in enumerate(self.mixers)}
        return {**found, "head": self.average}  # type: ignore[dict-item]

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i, norm in enumerate(self.norms):
            x = torch.relu(norm(run(f"embed_{i}", x)))
        for i, mlp in enumerate(self.mlps):
            x = x + run(f"mixer_{i}", x)
            x = x + mlp(x)
        logits: Tensor = self.head(run("head", x))
        return logits


def _mlp(dim: int, expand: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(dim, expand * dim), FeatureNorm(expand * dim), nn.ReLU(),
        nn.Linear(expand * dim, dim), FeatureNorm(dim),
    )  # fmt: skip
