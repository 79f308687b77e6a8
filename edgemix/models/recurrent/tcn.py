"""The temporal convolutional network of Conv-TasNet, causal."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.cumulative_norm import CumulativeNorm
from edgemix.streaming.forms import Pointwise
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class SeparableBlock(Assembled):
    """h = norm(prelu(depthwise(norm(prelu(U x))))), which leaves by two maps: W_r h and W_s h.

    Luo, Mesgarani, "Conv-TasNet: Surpassing Ideal Time-Frequency Magnitude Masking for Speech
    Separation", 2019, figure 1: W_r h is added to x, W_s h to the skip path.

    Shape: [batch, time, dim] → [batch, time, hidden].
    """

    def __init__(
        self, dim: int, hidden: int, skip: int, kernel: int, dilation: int, *,
        cumulative: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.enter = nn.Linear(dim, hidden)
        self.act1, self.act2 = nn.PReLU(), nn.PReLU()
        self.norm1, self.norm2 = _norm(hidden, cumulative), _norm(hidden, cumulative)
        self.conv = CausalConv(hidden, kernel, dilation=dilation, depthwise=True)
        self.residual = nn.Linear(hidden, dim)
        self.skip = nn.Linear(hidden, skip)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"norm1": self.norm1, "conv": self.conv, "norm2": self.norm2}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = run("norm1", self.act1(self.enter(x)))
        return run("norm2", self.act2(run("conv", x)))


class TCN(Assembled):
    """x ← x + W_r h a block, and W prelu(Σ W_s h) at the end: the separator of Conv-TasNet.

    Luo, Mesgarani, 2019: ``repeats`` times ``depth`` blocks, block i of them with a
    dilation of growth^i, so it sees 1 + repeats · (kernel − 1) · Σ growth^i steps. They take a
    growth of 2; Steinmetz, Reiss, "Efficient Neural Networks for Real-time Modeling of Analog
    Dynamic Range Compression", 2022 (micro-TCN) take 10 and few blocks. What comes out are masks
    before their squashing; the filters before and behind them are no part of it.

    Shape: [batch, time, features] → [batch, time, outputs].

    Args:
        features: of a step.
        outputs: of a step.
        dim: of the residual path.
        hidden: channels that are convolved.
        skip: of the skip path; None: as many as ``dim``.
        depth: blocks of growing dilation.
        repeats: of all of them.
        kernel: taps.
        growth: of the dilation from block to block.
        cumulative: norms over all steps so far, as in the paper, or else over a step's channels.
    """

    def __init__(
        self, features: int, outputs: int, *, dim: int, hidden: int, skip: int | None = None,
        depth: int = 8, repeats: int = 1, kernel: int = 3, growth: int = 2,
        cumulative: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        skip = skip or dim
        self.norm = _norm(features, cumulative)
        self.enter = nn.Linear(features, dim)
        self.blocks = nn.ModuleList(
            [
                SeparableBlock(dim, hidden, skip, kernel, growth**i, cumulative=cumulative)
                for _ in range(repeats)
                for i in range(depth)
            ]
        )
        self.leave = nn.Sequential(nn.PReLU(), nn.Linear(skip, outputs))

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"norm": self.norm, **{f"block_{i}": b for i, b in enumerate(self._blocks())}}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = self.enter(run("norm", x))
        skips = []
        blocks = self._blocks()
        for i, block in enumerate(blocks):
            h = run(f"block_{i}", x)
            skips.append(block.skip(h))
            if i + 1 < len(blocks):
                x = x + block.residual(h)
        total = skips[0]
        for skip in skips[1:]:
            total = total + skip
        result: Tensor = self.leave(total)
        return result

    def _blocks(self) -> list[SeparableBlock]:
        return cast(list[SeparableBlock], list(self.blocks))


def _norm(channels: int, cumulative: bool) -> Stepwise:
    return CumulativeNorm(channels) if cumulative else Pointwise(nn.LayerNorm(channels))
