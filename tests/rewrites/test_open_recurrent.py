"""Recurrent operators as their steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply
from edgemix.rewrites.open_recurrent import OpenRecurrent

KINDS = {
    "lstm": (nn.LSTM, {}),
    "lstm with projections": (nn.LSTM, {"proj_size": 3}),
    "gru": (nn.GRU, {}),
    "rnn_tanh": (nn.RNN, {}),
    "rnn_relu": (nn.RNN, {"nonlinearity": "relu"}),
}
OPERATORS = {"lstm", "gru", "rnn_tanh", "rnn_relu"}


PAIRS = (
    (1, False, False, False, False), (1, True, True, True, True), (2, False, True, False, True),
    (2, True, False, True, False), (2, False, False, True, True), (2, True, True, False, False),
)  # fmt: skip
"""Layers, bidirectional, batch_first, bias, initial states: every pair of choices is met."""


class Every(nn.Module):
    """A layer for each combination of options, all read the same input and initial states."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        make, options = KINDS[kind]
        self.layers = nn.ModuleList(
            make(
                4, 5, layers, bidirectional=both, batch_first=first, bias=bias,
                dropout=0.5 * (layers - 1), **options,
            )
            for layers, both, first, bias, _ in PAIRS
        )  # fmt: skip
        self.projected = options.get("proj_size", 5)

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, ...]:
        results: list[Tensor] = []
        for layer, (layers, both, first, _, given) in zip(self.layers, PAIRS, strict=True):
            start: Any = None  # the operator's own zeros
            if given:
                count, batch = layers * (2 if both else 1), x.shape[0 if first else 1]
                start = hidden[:count, :batch, : self.projected]
                start = (start, cell[:count, :batch]) if isinstance(layer, nn.LSTM) else start
            y, ends = layer(x, start)
            results += [y, *(ends if isinstance(ends, tuple) else (ends,))]
        return tuple(results)


@pytest.mark.parametrize("kind", KINDS)
def test_every_option_gives_outputs_and_last_states(kind: str, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(s, generator=generator) for s in ((3, 2, 4), (4, 3, 5), (4, 3, 5))]
    program = Program.trace(Every(kind), inputs, Origin("test"))
    assert {g.op_name(n) for n in g.float_ops(program.module())} & OPERATORS
    after = apply(program, OpenRecurrent())
    assert not {g.op_name(n) for n in g.float_ops(after.module())} & OPERATORS
    for found, expected in zip(after.call(*inputs), program.call(*inputs), strict=True):
        torch.testing.assert_close(found, expected)


class Last(nn.Module):
    """Reads a sequence and gives its last state."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.read(x)[1][0][0]


def test_a_memory_that_starts_at_zero_is_not_multiplied() -> None:
    program = rewrites.standard(Program.trace(Last(), (torch.zeros(1, 4, 3),), Origin("test")))
    names = [g.op_name(n) for n in g.float_ops(program.module())]
    # One product of all inputs, one of each state but the first; two biases are one.
    assert names.count("linear") == 1 + 3
    assert names.count("mul") == 3 * 4 - 1
    assert program.parameters == 16 * 3 + 16 * 4 + 16
    places = {n.name: g.where(n) for n in g.float_ops(program.module())}
    assert {w.module for name, w in places.items() if name != "select"} == {"read"}
    assert all(str(w.source).startswith("test_open_recurrent.py:") for w in places.values())
