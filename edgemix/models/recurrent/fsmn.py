"""FSMN: feedforward layers with a memory of a few taps."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.streaming.protocol import Assembled, Run, Stepwise


class MemoryTaps(Assembled):
    """p̃_t = p_t + Σ_{i<taps} a_i ⊙ p_{t − i·stride}, a vector a_i for every tap.

    Zhang et al., "Deep-FSMN for Large Vocabulary Continuous Speech Recognition", ICASSP 2018,
    without taps ahead: the left memory of FunASR's streaming models.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, taps: int, stride: int = 1) -> None:
        super().__init__()
        self.taps = CausalConv(dim, taps, dilation=stride, depthwise=True, bias=False)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"taps": self.taps}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        return x + run("taps", x)


class DeepFSMNBlock(Assembled):
    """x + memory(P relu(W x)).

    Zhang et al., ICASSP 2018, as MossFormer2 (Zhao et al., ICASSP 2024) has it in its recurrent
    part, but without the taps ahead, as many again, which a stream cannot have.

    Shape: [batch, time, dim] → [batch, time, dim].
    """

    def __init__(self, dim: int, hidden: int, taps: int, stride: int = 1) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, hidden)
        self.project = nn.Linear(hidden, dim, bias=False)
        self.memory = MemoryTaps(dim, taps, stride)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"memory": self.memory}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        return x + run("memory", self.project(torch.relu(self.linear(x))))


class CompactFSMNBlock(Assembled):
    """relu(W memory(P x)), P of low rank.

    Zhang et al., "Compact Feedforward Sequential Memory Networks for Large Vocabulary Continuous
    Speech Recognition", Interspeech 2016.

    Shape: [batch, time, hidden] → [batch, time, hidden].
    """

    def __init__(self, hidden: int, rank: int, taps: int, stride: int = 1) -> None:
        super().__init__()
        self.project = nn.Linear(hidden, rank, bias=False)
        self.memory = MemoryTaps(rank, taps, stride)
        self.linear = nn.Linear(rank, hidden)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        return {"memory": self.memory}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        return torch.relu(self.linear(run("memory", self.project(x))))


class FSMN(Assembled):
    """Two linear maps, compact blocks, two linear maps: FunASR's detector of voices, FSMN-VAD.

    Gao et al., "FunASR: A Fundamental End-to-End Speech Recognition Toolkit", Interspeech 2023, and
    its code: a map to ``border`` features, one to ``hidden`` and ReLU; at the end one back to
    ``border`` and one to the outputs.

    Shape: [batch, time, features] → [batch, time, outputs].
    """

    def __init__(
        self, features: int, outputs: int, *, border: int, hidden: int, rank: int, depth: int,
        taps: int, stride: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.enter = nn.Sequential(
            nn.Linear(features, border), nn.Linear(border, hidden), nn.ReLU()
        )
        self.blocks = nn.ModuleList(
            [CompactFSMNBlock(hidden, rank, taps, stride) for _ in range(depth)]
        )
        self.leave = nn.Sequential(nn.Linear(hidden, border), nn.Linear(border, outputs))

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        blocks = cast(list[CompactFSMNBlock], list(self.blocks))
        return {f"block_{i}": block for i, block in enumerate(blocks)}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        x = self.enter(x)
        for i in range(len(self.blocks)):
            x = run(f"block_{i}", x)
        result: Tensor = self.leave(x)
        return result
