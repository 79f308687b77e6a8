"""Max-Former: spiking MetaFormer whose operators keep high frequencies."""

from __future__ import annotations

from torch import Tensor, nn

from edgemix.models.spiking.neurons import LIF, LeakyIntegrator
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class Maps(nn.Module):
    """A module of maps [n, c, h, w] for sequences of them too, [n, time, c, h, w]."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        flat: Tensor = self.module(x.flatten(0, -4))
        return flat if x.ndim == 4 else flat.reshape(*x.shape[:2], *flat.shape[1:])


def spiking_conv(
    inputs: int, outputs: int, kernel: int, groups: int = 1, *, stride: int = 1, bias: bool = False
) -> Maps:
    """A convolution and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=bias)
    return Maps(nn.Sequential(conv, nn.BatchNorm2d(outputs)))


class MaxFormerBlock(Assembled):
    """x ← x + DWConv(spikes of x), x ← x + MLP(spikes of x): sums of membrane inputs.

    Fang et al., "Spiking Neural Networks Need High-Frequency Information", NeurIPS 2025, section
    3.3: a depthwise convolution mixes tokens where spiking attention, an average, would lose edges.

    Shape: [batch, time, dim, h, w] → the same.
    """

    def __init__(self, dim: int, size: tuple[int, int], expand: int = 2, leak: float = 0.5) -> None:
        super().__init__()
        self.mix_fire = LIF(dim, *size, leak=leak)
        self.enter_fire = LIF(dim, *size, leak=leak)
        self.inner_fire = LIF(expand * dim, *size, leak=leak)
        self.mix = spiking_conv(dim, dim, 3, groups=dim)
        self.enter = spiking_conv(dim, expand * dim, 1)
        self.leave = spiking_conv(expand * dim, dim, 1)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {
            "mix_fire": self.mix_fire,
            "enter_fire": self.enter_fire,
            "inner_fire": self.inner_fire,
        }

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        mixed: Tensor = self.mix(run("mix_fire", x))
        x = x + mixed
        changed: Tensor = self.leave(run("inner_fire", self.enter(run("enter_fire", x))))
        return x + changed


class MaxFormer(Assembled):
    """Embedding with max pooling, blocks, the mean of the last spikes, a leaky readout.

    A still picture is shown step after step; what the readout holds grows surer.

    Shape: [batch, time, channels, h, w] → [batch, time, classes].
    """

    def __init__(
        self, channels: int, size: tuple[int, int], classes: int, *, dim: int = 16, depth: int = 1
    ) -> None:
        super().__init__()
        small = (size[0] // 2, size[1] // 2)
        self.embed = spiking_conv(channels, dim, 3)
        self.pool = Maps(nn.MaxPool2d(2))
        self.embed_fire = LIF(dim, *small)
        self.second = spiking_conv(dim, dim, 3)
        self.blocks = nn.ModuleList([MaxFormerBlock(dim, small) for _ in range(depth)])
        self.last_fire = LIF(dim, *small)
        self.head = nn.Linear(dim, classes)
        self.readout = LeakyIntegrator(classes)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks: dict[str, Stepwise] = {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]
        return {
            "embed_fire": self.embed_fire, **blocks, "last_fire": self.last_fire,
            "readout": self.readout,
        }  # fmt: skip

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = self.second(run("embed_fire", self.pool(self.embed(x))))
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        return run("readout", self.head(run("last_fire", x).mean((-2, -1))))
