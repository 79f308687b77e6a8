"""The spiking LMUFormer: between its linear maps there are only spikes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.models.spiking.neurons import LIF, LeakyIntegrator
from edgemix.streaming.protocol import State, Stepwise, part


class SpikingUnit(Stepwise):
    """A linear map, batch norm, LIF neurons.

    Shape: [batch, time, inputs] → [batch, time, outputs], of 0 and 1.
    """

    def __init__(self, inputs: int, outputs: int, leak: float) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.norm = FeatureNorm(outputs)
        self.neuron = LIF(outputs, leak=leak)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.neuron.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        return self.neuron.step(self.norm(self.linear(x)), state)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = self.neuron(self.norm(self.linear(x)))
        return result


class SpikingBlock(Stepwise):
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

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {name: m.initial_state(batch) for name, m in self._parts().items()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}

        def run(name: str, value: Tensor) -> Tensor:
            y, after[name] = self._parts()[name].step(value, part(state, name))
            return y

        spikes = run("fire", x)
        x = x + self._recalled(run("memory", run("write", spikes)), spikes)
        return x + self._narrowed(run("widen", run("enter", x))), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        spikes = self.fire(x)
        x = x + self._recalled(self.memory(self.write(spikes)), spikes)
        return x + self._narrowed(self.widen(self.enter(x)))

    def _parts(self) -> dict[str, Stepwise]:
        return {
            "fire": self.fire, "write": self.write, "memory": self.memory, "enter": self.enter,
            "widen": self.widen,
        }  # fmt: skip

    def _recalled(self, memory: Tensor, spikes: Tensor) -> Tensor:
        result: Tensor = self.read_norm(self.read(torch.cat([memory, spikes], -1)))
        return result

    def _narrowed(self, x: Tensor) -> Tensor:
        result: Tensor = self.narrow_norm(self.narrow(x))
        return result


class SpikingLMUFormer(Stepwise):
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

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {name: m.initial_state(batch) for name, m in self._parts().items()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}

        def run(name: str, value: Tensor) -> Tensor:
            y, after[name] = self._parts()[name].step(value, part(state, name))
            return y

        x = run("embed_fire", self.embed_norm(run("embed", x)))
        x = self.second_norm(run("second", x))
        for name in self._parts():
            if name.startswith("block_"):
                x = run(name, x)
        return run("readout", self.head(run("last_fire", x))), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = self.embed_fire(self.embed_norm(self.embed(x)))
        x = self.second_norm(self.second(x))
        for block in self.blocks:
            x = block(x)
        result: Tensor = self.readout(self.head(self.last_fire(x)))
        return result

    def _parts(self) -> dict[str, Stepwise]:
        found: dict[str, Stepwise] = {
            "embed": self.embed, "embed_fire": self.embed_fire, "second": self.second,
        }  # fmt: skip
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Stepwise)
            found[f"block_{i}"] = block
        return {**found, "last_fire": self.last_fire, "readout": self.readout}
