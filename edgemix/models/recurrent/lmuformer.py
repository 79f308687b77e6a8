"""LMUFormer: Legendre memory mixes the tokens, convolutions embed them and mix the channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.average import RunningAverage
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.streaming.protocol import State, Stepwise, part


class LMUMixer(Stepwise):
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

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.memory.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        memory, after = self.memory.step(self._written(x), state)
        return self._read(memory, x), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return self._read(self.memory(self._written(x)), x)

    def _written(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm_in(self.encode(x)))

    def _read(self, memory: Tensor, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.mix(torch.cat([memory, x], -1))))


class LMUFormer(Stepwise):
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

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {
            **{f"embed_{i}": m.initial_state(batch) for i, m in enumerate(self.embed)},  # type: ignore[operator]
            **{f"mixer_{i}": m.initial_state(batch) for i, m in enumerate(self.mixers)},  # type: ignore[operator]
            "head": self.average.initial_state(batch),
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}
        for i, (conv, norm) in enumerate(zip(self.embed, self.norms, strict=True)):
            x, after[f"embed_{i}"] = conv.step(x, part(state, f"embed_{i}"))  # type: ignore[operator]
            x = torch.relu(norm(x))
        for i, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            y, after[f"mixer_{i}"] = mixer.step(x, part(state, f"mixer_{i}"))  # type: ignore[operator]
            x = x + y
            x = x + mlp(x)
        x, after["head"] = self.average.step(x, part(state, "head"))
        return self.head(x), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        for conv, norm in zip(self.embed, self.norms, strict=True):
            x = torch.relu(norm(conv(x)))
        for mixer, mlp in zip(self.mixers, self.mlps, strict=True):
            x = x + mixer(x)
            x = x + mlp(x)
        result: Tensor = self.head(self.average(x))
        return result


def _mlp(dim: int, expand: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(dim, expand * dim), FeatureNorm(expand * dim), nn.ReLU(),
        nn.Linear(expand * dim, dim), FeatureNorm(dim),
    )  # fmt: skip
