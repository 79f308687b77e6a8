"""SkiM as it separates speakers: what a block remembers of a segment starts the next block."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from edgemix.models.recurrent.chunked_conv import ChunkedConv
from edgemix.streaming.forms import Recurrent
from edgemix.streaming.protocol import Assembled, Run, State, Stepwise, by_steps, held, part, zeros


class SegmentBlock(nn.Module):
    """x + norm(W LSTM(x)) within a segment, from a memory that is given.

    Li et al., "SkiM: Skipping Memory LSTM for Low-Latency Real-Time Continuous Speech Separation",
    ICASSP 2022, equations 1 and 2.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.lstm = Recurrent(nn.LSTM(dim, hidden, batch_first=True))
        self.proj = nn.Sequential(nn.Linear(hidden, dim), nn.LayerNorm(dim))

    def joined(self, x: Tensor, y: Tensor) -> Tensor:
        """The block's output from its input and its LSTM's."""
        result: Tensor = x + self.proj(y)
        return result


class MemoryBlock(Stepwise):
    """h + norm(W LSTM(h)): how a segment's last memory becomes a later one's first.

    Li et al., ICASSP 2022, equations 3 to 5; once for hidden and once for cell states.

    Shape: [batch, segments, hidden] → [batch, segments, hidden].
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = Recurrent(nn.LSTM(hidden, hidden, batch_first=True))
        self.proj = nn.Sequential(nn.Linear(hidden, hidden), nn.LayerNorm(hidden))

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.lstm.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        y, after = self.lstm.step(x, state)
        return x + self.proj(y), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        result: Tensor = x + self.proj(self.lstm(x))
        return result


class SkiMStack(Stepwise):
    """Blocks of segment LSTMs; between two of them memories skip a segment and go a block up.

    Li et al., ICASSP 2022, section 2.2, in the causal form: block l + 1 starts a segment with what
    the memory blocks made of block l at the end of the segment before; the first starts at zero.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``segment``.
    """

    def __init__(self, dim: int, hidden: int, depth: int, *, segment: int) -> None:
        super().__init__()
        self.chunk = segment
        self.blocks = nn.ModuleList([SegmentBlock(dim, hidden) for _ in range(depth)])
        self.hidden = nn.ModuleList([MemoryBlock(hidden) for _ in range(depth - 1)])
        self.cell = nn.ModuleList([MemoryBlock(hidden) for _ in range(depth - 1)])
        self.width = hidden

    def initial_state(self, batch: int = 1) -> State:
        """For every block but the first where its segment ``start``s, and both memories."""
        start = {name: zeros(batch, self.width) for name in ("hidden_0", "cell_0")}
        state: dict[str, State] = {}
        for i, (hidden, cell) in enumerate(self._memories()):
            state[f"start_{i + 1}"] = start
            state[f"hidden_{i}"] = hidden.initial_state(batch)
            state[f"cell_{i}"] = cell.initial_state(batch)
        return state

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        after: dict[str, State] = {}
        memories = self._memories()
        for i, block in enumerate(self._blocks()):
            begin = part(state, f"start_{i}") if i else block.lstm.initial_state(len(x))
            y, end = by_steps(block.lstm, x, begin)
            x = block.joined(x, y)
            if i < len(memories):
                hidden, cell = memories[i]
                h, after[f"hidden_{i}"] = hidden.step(
                    held(end, "hidden_0"), part(state, f"hidden_{i}")
                )
                c, after[f"cell_{i}"] = cell.step(held(end, "cell_0"), part(state, f"cell_{i}"))
                after[f"start_{i + 1}"] = {"hidden_0": h, "cell_0": c}
        return x, after

    def forward(self, x: Tensor) -> Tensor:
        """Block after block, all segments at once."""
        assert self.chunk is not None
        batch, memories = len(x), self._memories()
        pieces = torch.unflatten(x, 1, (-1, self.chunk)).flatten(0, 1)
        start = zeros(1, len(pieces), self.width)
        begin = (start, start)
        for i, block in enumerate(self._blocks()):
            y, (h, c) = block.lstm.module(pieces, begin)
            pieces = block.joined(pieces, y)
            if i < len(memories):
                hidden, cell = memories[i]
                begin = (self._moved(hidden, h, batch), self._moved(cell, c, batch))
        return torch.unflatten(pieces, 0, (batch, -1)).flatten(1, 2)

    def _blocks(self) -> list[SegmentBlock]:
        return cast(list[SegmentBlock], list(self.blocks))

    def _memories(self) -> list[tuple[MemoryBlock, MemoryBlock]]:
        """Behind every block but the last, for hidden and for cell states."""
        pairs = zip(self.hidden, self.cell, strict=True)
        return cast(list[tuple[MemoryBlock, MemoryBlock]], list(pairs))

    @staticmethod
    def _moved(memory: MemoryBlock, ends: Tensor, batch: int) -> Tensor:
        """What each segment's end is for the segment after it."""
        found: Tensor = memory(torch.unflatten(ends[0], 0, (batch, -1)))
        return torch.cat([zeros(batch, 1, found.shape[2]), found[:, :-1]], 1).flatten(0, 1)[None]


class SkiMSeparator(Assembled):
    """Samples into features, a mask for every speaker, features into samples.

    Li et al., ICASSP 2022, section 2: the time-domain codec of TasNet at a kernel of two samples
    and a stride of one. A sample leaves one step after the last frame that it is in.

    Shape: [batch, time, 1] → [batch, time, speakers], time a multiple of ``segment``.
    """

    def __init__(
        self, dim: int, hidden: int, depth: int, *, segment: int, speakers: int = 2
    ) -> None:
        super().__init__()
        self.chunk, self.speakers = segment, speakers
        self.encode = ChunkedConv(1, 2, dim, chunk=segment, bias=False)
        self.stack = SkiMStack(dim, hidden, depth, segment=segment)
        self.mask = nn.Sequential(nn.PReLU(), nn.Linear(dim, speakers * dim), nn.ReLU())
        self.decode = ChunkedConv(dim, 2, 1, chunk=segment, bias=False)

    def members(self) -> dict[str, Stepwise]:  # noqa: D102
        decoders = {f"decode_{i}": self.decode for i in range(self.speakers)}
        return {"encode": self.encode, "stack": self.stack, **decoders}

    def flow(self, x: Tensor, run: Run) -> Tensor:  # noqa: D102
        features = torch.relu(run("encode", x))
        masks = self.mask(run("stack", features)).chunk(self.speakers, -1)
        return torch.cat([run(f"decode_{i}", features * m) for i, m in enumerate(masks)], -1)
