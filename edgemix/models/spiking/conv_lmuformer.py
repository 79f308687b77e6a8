"""The spiking LMUFormer layer by layer as it was published: residual sums of membrane inputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.models.norm import FeatureNorm
from edgemix.models.recurrent.average import RunningAverage
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.delay import Delay
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.models.spiking.neurons import averaging
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class NormedSpikes(Assembled):
    """Batch norm, and neurons that average their input.

    Shape: [batch, time, features] → [batch, time, features], of 0 and 1.
    """

    def __init__(self, features: int, threshold: float = 1.0) -> None:
        super().__init__()
        self.norm = FeatureNorm(features)
        self.neuron = averaging(features, threshold=threshold)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"neuron": self.neuron}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        return run("neuron", self.norm(x))


class SpikingPatchEmbedding(Assembled):
    """Three times spikes(BN(conv(x))), a fourth conv u, then u + conv(spikes(BN(u))).

    Liu, Datta, Li, Beerel, "LMUFormer", ICLR 2024, section 4.3. As in the embedding without spikes
    the published convolutions read one position ahead each; these are the same five steps later.

    Shape: [batch, time, features] → [batch, time, dim].
    """

    def __init__(self, features: int, dim: int) -> None:
        super().__init__()
        widths = (features, dim, dim, dim, dim)
        self.convs = nn.ModuleList([CausalConv(width, 3, dim, bias=False) for width in widths])
        self.fires = nn.ModuleList([NormedSpikes(dim) for _ in widths[1:]])
        self.wait = Delay(dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        found: dict[str, Stepwise] = {f"conv_{i}": c for i, c in enumerate(self.convs)}  # type: ignore[misc]
        found |= {f"fire_{i}": f for i, f in enumerate(self.fires)}  # type: ignore[misc]
        return {**found, "wait": self.wait}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("conv_0", x)
        for i in range(1, len(self.fires)):
            x = run(f"conv_{i}", run(f"fire_{i - 1}", x))
        last = len(self.fires)
        return run("wait", x) + run(f"conv_{last}", run(f"fire_{last - 1}", x))


class SpikingLMUBlock(Assembled):
    """Spikes into a Legendre memory and out of it, spikes in the channel mixer.

    Liu, Datta, Li, Beerel, "LMUFormer", ICLR 2024, section 4.3 and figure 3: what drives the
    memory, its coefficients and what is read of them fire behind a batch norm each.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, order: int, window: float, expand: int) -> None:
        super().__init__()
        self.fire = NormedSpikes(dim, threshold=0.5)
        self.encode = nn.Linear(dim, 1)
        self.drive = NormedSpikes(1)
        self.memory = LegendreMemory(1, order, window)
        self.recall = NormedSpikes(order)
        self.mix = nn.Linear(order + dim, dim)
        self.read = NormedSpikes(dim)
        self.proj = nn.Sequential(nn.Linear(dim, dim), FeatureNorm(dim))
        self.enter = NormedSpikes(dim)
        self.widen = nn.Linear(dim, expand * dim)
        self.inner = NormedSpikes(expand * dim)
        self.narrow = nn.Linear(expand * dim, dim)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {
            "fire": self.fire, "drive": self.drive, "memory": self.memory, "recall": self.recall,
            "read": self.read, "enter": self.enter, "inner": self.inner,
        }  # fmt: skip

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        spikes = run("fire", x)
        recalled = run("recall", run("memory", run("drive", self.encode(spikes))))
        x = x + self.proj(run("read", self.mix(torch.cat([recalled, spikes], -1))))
        mixed: Tensor = self.narrow(run("inner", self.widen(run("enter", x))))
        return x + mixed


class SpikingConvLMUFormer(Assembled):
    """Patch embedding, blocks, spikes, a classifier whose logits are averaged as they come.

    Liu, Datta, Li, Beerel, "LMUFormer: Low Complexity Yet Powerful Spiking Model With Legendre
    Memory Units", ICLR 2024, section 4.3. The paper averages over the whole sequence; a stream has
    no end, so the average here runs. :class:`~edgemix.models.spiking.lmuformer.SpikingLMUFormer` is
    the lighter plan of the same parts that the keyword spotters have.

    Shape: [batch, time, features] → [batch, time, classes].
    """

    def __init__(
        self, features: int, classes: int, *, dim: int, depth: int = 1, order: int, window: float,
        expand: int = 4,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embed = SpikingPatchEmbedding(features, dim)
        self.blocks = nn.ModuleList(
            [SpikingLMUBlock(dim, order, window, expand) for _ in range(depth)]
        )
        self.last_fire = NormedSpikes(dim)
        self.head = nn.Linear(dim, classes)
        self.average = RunningAverage(classes, window)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks: dict[str, Stepwise] = {f"block_{i}": b for i, b in enumerate(self.blocks)}  # type: ignore[misc]
        return {
            "embed": self.embed, **blocks, "last_fire": self.last_fire, "average": self.average,
        }  # fmt: skip

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("embed", x)
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        return run("average", self.head(run("last_fire", x)))
