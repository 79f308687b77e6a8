"""Max-Former: spiking MetaFormer whose operators keep high frequencies."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from edgemix.models.spiking.neurons import LIF, LeakyIntegrator
from edgemix.streaming.protocol import State, Stepwise, part


class SpikingConv(nn.Module):
    """A convolution and its batch norm, on maps of any leading axes."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if x.ndim == 4:
            result: Tensor = self.norm(self.conv(x))
            return result
        flat: Tensor = self.norm(self.conv(x.flatten(0, 1)))
        return flat.reshape(*x.shape[:2], *flat.shape[1:])


class MaxFormerBlock(Stepwise):
    """x ← x + DWConv(spikes of x), x ← x + MLP(spikes of x): sums of membrane inputs.

    Fang et al., "Spiking Neural Networks Need High-Frequency Information", NeurIPS 2025, section
    3.3: a depthwise convolution mixes tokens where spiking attention, an average, would lose edges.

    Shape: [batch, time, dim, h, w] → the same.
    """

    def __init__(self, dim: int, size: tuple[int, int], expand: int = 2, leak: float = 0.5) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({
            "mix_fire": LIF(dim, *size, leak=leak),
            "enter_fire": LIF(dim, *size, leak=leak),
            "inner_fire": LIF(expand * dim, *size, leak=leak),
        })  # fmt: skip
        self.mix = SpikingConv(dim, dim, 3, groups=dim)
        self.enter = SpikingConv(dim, expand * dim, 1)
        self.leave = SpikingConv(expand * dim, dim, 1)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {name: m.initial_state(batch) for name, m in self.parts.items()}  # type: ignore[operator]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}

        def run(name: str, value: Tensor) -> Tensor:
            found: tuple[Tensor, State] = self.parts[name].step(value, part(state, name))  # type: ignore[operator]
            y, after[name] = found
            return y

        x = x + self.mix(run("mix_fire", x))
        inner = self.enter(run("enter_fire", x))
        x = x + self.leave(run("inner_fire", inner))
        return x, after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        x = x + self.mix(self.parts["mix_fire"](x))
        inner = self.enter(self.parts["enter_fire"](x))
        result: Tensor = x + self.leave(self.parts["inner_fire"](inner))
        return result


class MaxFormer(Stepwise):
    """Embedding with max pooling, blocks, the mean of the last spikes, a leaky readout.

    A still picture is shown step after step; what the readout holds grows surer.

    Shape: [batch, time, channels, h, w] → [batch, time, classes].
    """

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, *, dim: int = 16, depth: int = 1
    ) -> None:
        super().__init__()
        small = (size[0] // 2, size[1] // 2)
        self.embed = SpikingConv(channels, dim, 3)
        self.embed_fire = LIF(dim, *small)
        self.second = SpikingConv(dim, dim, 3)
        self.blocks = nn.ModuleList([MaxFormerBlock(dim, small) for _ in range(depth)])
        self.last_fire = LIF(dim, *small)
        self.head = nn.Linear(dim, classes)
        self.readout = LeakyIntegrator(classes)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return {name: m.initial_state(batch) for name, m in self._parts().items()}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}

        def run(name: str, value: Tensor) -> Tensor:
            y, after[name] = self._parts()[name].step(value, part(state, name))
            return y

        x = self.second(run("embed_fire", functional.max_pool2d(self.embed(x), 2)))
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        spikes = run("last_fire", x)
        return run("readout", self.head(spikes.mean((-2, -1)))), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        embedded = self.embed(x)
        pooled = functional.max_pool2d(embedded.flatten(0, 1), 2)
        x = self.second(self.embed_fire(pooled.reshape(*x.shape[:2], *pooled.shape[1:])))
        for block in self.blocks:
            x = block(x)
        spikes = self.last_fire(x)
        result: Tensor = self.readout(self.head(spikes.mean((-2, -1))))
        return result

    def _parts(self) -> dict[str, Stepwise]:
        found: dict[str, Stepwise] = {"embed_fire": self.embed_fire}
        for i, block in enumerate(self.blocks):
            assert isinstance(block, Stepwise)
            found[f"block_{i}"] = block
        return {**found, "last_fire": self.last_fire, "readout": self.readout}
