"""Max-Former stage by stage as it was published."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.spiking.max_former import Maps, spiking_conv
from edgemix.models.spiking.neurons import LeakyIntegrator, averaging
from edgemix.models.spiking.self_attention import SpikingSelfAttention
from edgemix.streaming.forms import Pointwise
from edgemix.streaming.protocol import Assembled, Run, Stepwise

Size = tuple[int, int]
"""Height and width."""
Mixer = Callable[[int, Size], Stepwise]
"""From channels and size to what maps [batch, time, dim, h, w] to the same, residual included."""
Embedding = Callable[[int, int, Size], "SpikingEmbedding"]
"""From channels, channels after it and size."""


class SpikingEmbedding(Assembled):
    """s = spikes(first(x)); the sum of a short path over s, and of a deep one with spikes inside.

    Fang et al., "Spiking Neural Networks Need High-Frequency Information", NeurIPS 2025, figure 4.

    Shape: [batch, time, channels, h, w] → [batch, time, dim, h', w'].
    """

    def __init__(
        self, first: nn.Module | None, deep: Sequence[nn.Module], short: nn.Module,
        inner: Sequence[tuple[int, int, int]],
    ) -> None:  # fmt: skip
        super().__init__()
        self.first = nn.Identity() if first is None else first
        self.deep, self.short = nn.ModuleList(deep), short
        self.fires = nn.ModuleList([averaging(*shape) for shape in inner])

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {f"fire_{i}": f for i, f in enumerate(self.fires)}  # type: ignore[misc]

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        spikes = run("fire_0", self.first(x))
        y: Tensor = self.deep[0](spikes)
        for i, conv in list(enumerate(self.deep))[1:]:
            y = conv(run(f"fire_{i}", y))
        short: Tensor = self.short(spikes)
        return y + short


def whole_size_start(channels: int, dim: int, size: Size) -> SpikingEmbedding:
    """Embed-Orig: no position is left out."""
    half = dim // 2
    return SpikingEmbedding(
        spiking_conv(channels, half, 3), [spiking_conv(half, dim, 3)], spiking_conv(half, dim, 1),
        [(half, *size)],
    )  # fmt: skip


def quarter_size_start(channels: int, dim: int, size: Size) -> SpikingEmbedding:
    """Embed-Orig for large pictures: a quarter of the height and width."""
    half, (h, w) = dim // 2, size
    return SpikingEmbedding(
        spiking_conv(channels, half, 3, stride=2),
        [spiking_conv(half, dim, 3, stride=2), spiking_conv(dim, dim, 3)],
        spiking_conv(half, dim, 1, stride=2),
        [(half, h // 2, w // 2), (dim, h // 4, w // 4)],
    )


def max_pooled(channels: int, dim: int, size: Size) -> SpikingEmbedding:
    """Embed-Max: a maximum halves height and width, on both paths."""
    return SpikingEmbedding(
        None,
        [nn.Sequential(spiking_conv(channels, dim, 3), _halved()), spiking_conv(dim, dim, 3)],
        nn.Sequential(spiking_conv(channels, dim, 1), _halved()),
        [(channels, *size), (dim, size[0] // 2, size[1] // 2)],
    )


def _halved() -> Maps:
    return Maps(nn.MaxPool2d(3, 2, 1))


class SpikingDepthwise(Assembled):
    """x + BN(DWConv(spikes(x))).

    Shape: [batch, time, dim, h, w] → the same.
    """

    def __init__(self, dim: int, size: Size, kernel: int) -> None:
        super().__init__()
        self.fire = averaging(dim, *size)
        self.mix = spiking_conv(dim, dim, kernel, groups=dim, bias=True)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"fire": self.fire}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        mixed: Tensor = self.mix(run("fire", x))
        return x + mixed


class SpikingMlp(Assembled):
    """x + BN(W₂ spikes(BN(W₁ spikes(x)))).

    Shape: [batch, time, dim, h, w] → the same.
    """

    def __init__(self, dim: int, size: Size, expand: int) -> None:
        super().__init__()
        self.fire = averaging(dim, *size)
        self.enter = spiking_conv(dim, expand * dim, 1, bias=True)
        self.inner_fire = averaging(expand * dim, *size)
        self.leave = spiking_conv(expand * dim, dim, 1, bias=True)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"fire": self.fire, "inner_fire": self.inner_fire}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        changed: Tensor = self.leave(run("inner_fire", self.enter(run("fire", x))))
        return x + changed


@dataclass(frozen=True)
class SpikingStage:
    """Blocks at one size."""

    dim: int
    depth: int
    embedding: Embedding
    shrinks: int
    """How many times smaller the embedding makes height and width."""
    mixer: Mixer | None
    """None: the blocks mix channels only."""


def attention(heads: int) -> Mixer:
    """Spiking self-attention of so many heads."""
    return lambda dim, size: SpikingSelfAttention(dim, size, heads)


def depthwise(kernel: int) -> Mixer:
    """A depthwise convolution of spikes."""
    return lambda dim, size: SpikingDepthwise(dim, size, kernel)


class StagedMaxFormer(Assembled):
    """Stages, the mean over positions, spikes of it, a classifier, and the sum of what it says.

    Fang et al., "Spiking Neural Networks Need High-Frequency Information", NeurIPS 2025, section
    3.3 and figure 4. A still picture is shown for T steps; the paper's logits are the mean over
    them, which is a T-th of what the readout holds then.

    Shape: [batch, time, channels, h, w] → [batch, time, classes].

    Raises:
        InputError: a stage's embedding does not divide the size before it.
    """

    def __init__(
        self, channels: int, size: Size, classes: int, stages: Sequence[SpikingStage],
        expand: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        layers: list[nn.Module] = []
        for stage in stages:
            if size[0] % stage.shrinks or size[1] % stage.shrinks:
                raise InputError(f"{size[0]} × {size[1]} does not divide by {stage.shrinks}")
            layers.append(stage.embedding(channels, stage.dim, size))
            size = (size[0] // stage.shrinks, size[1] // stage.shrinks)
            for _ in range(stage.depth):
                layers += [] if stage.mixer is None else [stage.mixer(stage.dim, size)]
                layers.append(SpikingMlp(stage.dim, size, expand))
            channels = stage.dim
        self.layers = nn.ModuleList(layers)
        self.last_fire = averaging(channels)
        self.head = Pointwise(nn.Linear(channels, classes))
        self.readout = LeakyIntegrator(classes, leak=0.0)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        layers: dict[str, Stepwise] = {f"layer_{i}": m for i, m in enumerate(self.layers)}  # type: ignore[misc]
        return {**layers, "last_fire": self.last_fire, "head": self.head, "readout": self.readout}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        for i in range(len(self.layers)):
            x = run(f"layer_{i}", x)
        spikes = run("last_fire", torch.mean(x, (-2, -1)))
        return run("readout", run("head", spikes))
