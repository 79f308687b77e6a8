"""Recurrent operators over a sequence → their steps, written out."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.rewrites.writer import Writer

State = tuple[Node | None, ...]
"""Hidden state, of an LSTM also the cell; None holds zeros."""


@dataclass(frozen=True)
class OpenRecurrent:
    """``lstm``, ``gru``, ``rnn_tanh`` and ``rnn_relu`` as one graph of all their steps.

    Equations: the documentation of ``torch.nn.LSTM``, ``GRU`` and ``RNN``. What depends on the
    input alone is one product for the whole sequence. Every target has the operators then, and
    every value can be quantized.
    """

    name: ClassVar[str] = "open_recurrent"

    def apply(self, module: GraphModule) -> int:
        """Open them all; returns how many there were."""
        count = 0
        for node in list(module.graph.nodes):
            if node.target in _STEPS and not _drops(node):
                _open(Writer(module, node, self.name))
                count += 1
        return count


@dataclass(frozen=True)
class _Weights:
    """Of one direction of one layer."""

    given: Node
    recurrent: Node
    given_bias: Node | None = None
    recurrent_bias: Node | None = None
    projection: Node | None = None

    @classmethod
    def take(cls, rest: list[Node], *, biases: bool, projected: bool) -> _Weights:
        """The first of those that are left."""
        found = {"given": rest.pop(0), "recurrent": rest.pop(0)}
        if biases:
            found |= {"given_bias": rest.pop(0), "recurrent_bias": rest.pop(0)}
        if projected:
            found["projection"] = rest.pop(0)
        return cls(**found)

    def one_bias(self, write: Writer) -> _Weights:
        """Both biases in one, for steps that add both up anyway."""
        if self.given_bias is None:
            return self
        bias = _sum(write, self.given_bias, self.recurrent_bias)
        return replace(self, given_bias=bias, recurrent_bias=None)


def _lstm(write: Writer, given: Node, weights: _Weights, state: State) -> State:
    hidden, cell = state
    gates = _sum(write, given, _recurrent(write, weights, hidden))
    i, f, c, o = _parts(write, gates, 4)
    fresh = write(aten.mul.Tensor, _sigmoid(write, i), write(aten.tanh.default, c))
    if cell is not None:
        kept = write(aten.mul.Tensor, _sigmoid(write, f), cell)
        fresh = write(aten.add.Tensor, kept, fresh)
    hidden = write(aten.mul.Tensor, _sigmoid(write, o), write(aten.tanh.default, fresh))
    if weights.projection is not None:
        hidden = write(aten.linear.default, hidden, weights.projection)
    return hidden, fresh


def _gru(write: Writer, given: Node, weights: _Weights, state: State) -> State:
    (hidden,) = state
    recurrent = _recurrent(write, weights, hidden)
    rx, zx, nx = _parts(write, given, 3)
    rh, zh, nh = [None] * 3 if recurrent is None else _parts(write, recurrent, 3)
    update = _sigmoid(write, _sum(write, zx, zh))
    if nh is not None:
        reset = _sigmoid(write, _sum(write, rx, rh))
        nx = _sum(write, nx, write(aten.mul.Tensor, reset, nh))
    new = write(aten.tanh.default, nx)
    if hidden is None:
        return (write(aten.sub.Tensor, new, write(aten.mul.Tensor, update, new)),)
    change = write(aten.mul.Tensor, update, write(aten.sub.Tensor, hidden, new))
    return (write(aten.add.Tensor, new, change),)


def _plain(function: Any) -> _Step:
    def step(write: Writer, given: Node, weights: _Weights, state: State) -> State:
        recurrent = _recurrent(write, weights, state[0])
        return (write(function, _sum(write, given, recurrent)),)

    return step


_Step = Callable[[Writer, Node, _Weights, State], State]

_STEPS: dict[Any, _Step] = {
    aten.lstm.input: _lstm,
    aten.gru.input: _gru,
    aten.rnn_tanh.input: _plain(aten.tanh.default),
    aten.rnn_relu.input: _plain(aten.relu.default),
}


def _drops(node: Node) -> bool:
    """Whether values are dropped between layers, as in training."""
    dropout, train = node.args[5:7]
    return bool(dropout) and bool(train)


def _open(write: Writer) -> None:
    node = write.at
    given: tuple[Any, ...] = node.args
    x, held, parameters, biases, layers, _, _, both, batch_first = given
    states = [held] if isinstance(held, Node) else held
    time = 1 if batch_first else 0
    directions = 2 if both else 1
    rest = list(parameters)
    each = len(rest) // (layers * directions)
    ends: list[State] = []
    for layer in range(layers):
        found = []
        for direction in range(directions):
            weights = _Weights.take(rest, biases=biases, projected=each in (3, 5))
            if node.target is not aten.gru.input:
                weights = weights.one_bias(write)
            start = tuple(_start(write, s, layer * directions + direction, time) for s in states)
            y, end = _run(write, x, weights, start, time, backwards=direction == 1)
            found.append(y)
            ends.append(end)
        x = found[0] if len(found) == 1 else write(aten.cat.default, found, -1)
    last = [_joined(write, kind, time) for kind in zip(*ends, strict=True)]
    for item in list(node.users):
        place: Any = item.args[1]
        assert item.target is operator.getitem
        item.replace_all_uses_with([x, *last][place], propagate_meta=False)
        write.module.graph.erase_node(item)
    write.module.graph.erase_node(node)


def _run(
    write: Writer, x: Node, weights: _Weights, state: State, time: int, *, backwards: bool
) -> tuple[Node, State]:
    """One direction of one layer: the outputs of all steps, and the state after the last."""
    given = write(aten.linear.default, x, weights.given, weights.given_bias)
    steps = range(g.shape_of(x)[time])
    outputs = []
    for t in reversed(steps) if backwards else steps:
        now = write(aten.slice.Tensor, given, time, t, t + 1)
        state = _STEPS[write.at.target](write, now, weights, state)
        outputs.append(state[0])
    if backwards:
        outputs.reverse()
    return write(aten.cat.default, outputs, time), state


def _start(write: Writer, given: Node, index: int, time: int) -> Node | None:
    """The initial state of one direction of one layer, as a sequence of one step."""
    if _is_zero(write.module, given):
        return None
    state = write(aten.slice.Tensor, given, 0, index, index + 1)
    return write(aten.transpose.int, state, 0, 1) if time else state


def _joined(write: Writer, states: Sequence[Node], time: int) -> Node:
    """The last states [layers · directions, batch, features]."""
    states = [write(aten.transpose.int, s, 0, 1) for s in states] if time else states
    return states[0] if len(states) == 1 else write(aten.cat.default, list(states), 0)


def _is_zero(module: GraphModule, node: Node) -> bool:
    if node.op == "get_attr":
        return not g.constant(module, node).any()
    return node.target in (aten.zeros.default, aten.zeros_like.default, aten.new_zeros.default)


def _recurrent(write: Writer, weights: _Weights, hidden: Node | None) -> Node | None:
    if hidden is None:
        return weights.recurrent_bias
    return write(aten.linear.default, hidden, weights.recurrent, weights.recurrent_bias)


def _parts(write: Writer, node: Node, count: int) -> list[Node]:
    size = g.shape_of(node)[-1] // count
    return [write(aten.slice.Tensor, node, -1, i * size, (i + 1) * size) for i in range(count)]


def _sigmoid(write: Writer, node: Node) -> Node:
    return write(aten.sigmoid.default, node)


def _sum(write: Writer, a: Node, b: Node | None) -> Node:
    return a if b is None else write(aten.add.Tensor, a, b)
