"""SkiM: an LSTM within segments, and a memory that skips from segment to segment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.streaming.forms import Recurrent
from edgemix.streaming.protocol import State, Stepwise, by_steps, held, part


class SkiM(Stepwise):
    """A segment LSTM whose memory two memory LSTMs hand from one segment to the next.

    Li et al., "SkiM: Skipping Memory LSTM for Low-Latency Real-Time Continuous Speech Separation",
    ICASSP 2022, section 2.2, causal form: after a segment its hidden and its cell state go through
    an LSTM each; what comes out is where the next segment starts.

    Shape: [batch, time, dim] → [batch, time, dim], time a multiple of ``segment``.
    """

    def __init__(self, dim: int, hidden: int, *, segment: int = 8) -> None:
        super().__init__()
        self.chunk = segment
        self.within = Recurrent(nn.LSTM(dim, hidden, batch_first=True))
        self.across_hidden = Recurrent(nn.LSTM(hidden, hidden, batch_first=True))
        self.across_cell = Recurrent(nn.LSTM(hidden, hidden, batch_first=True))
        self.proj = nn.Linear(hidden, dim)
        self.norm = nn.LayerNorm(dim)

    def initial_state(self, batch: int = 1) -> State:
        """Where the segment starts, and the memories of both memory LSTMs."""
        return {
            "segment": self.within.initial_state(batch),
            "hidden": self.across_hidden.initial_state(batch),
            "cell": self.across_cell.initial_state(batch),
        }

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        y, end = by_steps(self.within, x, part(state, "segment"))
        last = held(end, "hidden_0"), held(end, "cell_0")
        hidden, across_hidden = self.across_hidden.step(last[0], part(state, "hidden"))
        cell, across_cell = self.across_cell.step(last[1], part(state, "cell"))
        after = {
            "segment": {"hidden_0": hidden, "cell_0": cell},
            "hidden": across_hidden,
            "cell": across_cell,
        }
        return self._left(y, x), after

    def forward(self, x: Tensor) -> Tensor:
        """All segments, the inner LSTM in one call each."""
        assert self.chunk is not None
        memory = torch.zeros(2, 1, len(x), self.within.module.hidden_size)
        across: list[tuple[Tensor, Tensor] | None] = [None, None]
        found = []
        for piece in torch.split(x, self.chunk, 1):
            y, ends = self.within.module(piece, (memory[0], memory[1]))
            found.append(y)
            lstms = (self.across_hidden.module, self.across_cell.module)
            moved = [
                lstm(end.transpose(0, 1), past)
                for lstm, end, past in zip(lstms, ends, across, strict=True)
            ]
            memory = torch.stack([m[0].transpose(0, 1) for m in moved])
            across = [m[1] for m in moved]
        return self._left(torch.cat(found, 1), x)

    def _left(self, y: Tensor, x: Tensor) -> Tensor:
        result: Tensor = x + self.norm(self.proj(y))
        return result
