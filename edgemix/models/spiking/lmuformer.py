"""The spiking LMUFormer: between its linear maps there are only spikes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.models.spiking.neurons import LIF, LeakyIntegrator
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class SpikingUnit(Assembled):
    """A linear map, batch norm, LIF neurons.

    Shape: [batch, time, inputs] → [batch, time, outputs], of 0 and 1.
    """

    def __init__(self, inputs: int, outputs: int, leak: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = FeatureNorm(outputs)
        self.neuron = LIF(outputs, leak=leak)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"neuron": self.neuron}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        return run("neuron", self.norm(self.linear(x)))


class SpikingBlock(Assembled):
    """Spikes into a Legendre memory, spikes out of it, spikes through the channel mixer.

    Residual sums are of membrane inputs, not of spikes, so that what travels stays 0 or 1.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(
        self, dim: int, channels: int, order: int, window: float, expand: int, leak: float
    ) -> None:
        super().__init__()
        self.fire = LIF(dim, leak=leak)
        self.write = SpikingUnit(dim, channels, leak)
        self.memory = LegendreMemory(channels, order, window)
        self.read = nn.Linear(channels * order + dim, dim)
        self.read_norm = FeatureNorm(dim)
        self.enter = LIF(dim, leak=leak)
        self.widen = SpikingUnit(dim, expand * dim, leak)
        self.narrow = nn.Linear(expand * dim, dim)
        self.narrow_norm = FeatureNorm(dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {
            "fire": self.fire, "write": self.write, "memory": self.memory, "enter": self.enter,
            "widen": self.widen,
        }  # fmt: skip

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        spikes = run("fire", x)
        recalled = torch.cat([run("memory", run("write", spikes)), spikes], -1)
        x = x + self.read_norm(self.read(recalled))
        mixed: Tensor = self.narrow_norm(self.narrow(run("widen", run("enter", x))))
        return x + mixed


class SpikingLMUFormer(Assembled):
    """Causal convolutions, spiking blocks, a leaky readout.

    Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre
    Memory Units", ICLR 2024, section 4.3.

    Shape: [batch, time, features] → [batch, time, classes].
    """

    def __init__(
        self, features: int, classes: int, *, dim: int = 64, depth: int = 1, channels: int = 16,
        order: int = 8, window: float = 32.0, expand: int = 2, leak: float = 0.5,
        readout_leak: float = 0.0625,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = CausalConv(features, 5, dim)
        self.embed_norm = FeatureNorm(dim)
        self.embed_fire = LIF(dim, leak=leak)
        self.second = CausalConv(dim, 3, dim)
        self.second_norm = FeatureNorm(dim)
        self.blocks = nn.ModuleList(
            [SpikingBlock(dim, channels, order, window, expand, leak) for _ in range(depth)]
        )
        self.last_fire = LIF(dim, leak=leak)
        self.head = nn.Linear(dim, classes)
        self.readout = LeakyIntegrator(classes, leak=readout_leak)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks: dict[str, Stepwise] = {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]
        return {
            "embed": self.embed, "embed_fire": self.embed_fire, "second": self.second,
            **blocks, "last_fire": self.last_fire, "readout": self.readout,
        }  # fmt: skip

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("embed_fire", self.embed_norm(run("embed", x)))
        x = self.second_norm(run("second", x))
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        return run("readout", self.head(run("last_fire", x)))
