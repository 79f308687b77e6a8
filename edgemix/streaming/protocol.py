"""The small protocol of a model with a memory, and its base class.

    initial_state(batch)   what the memory holds before the first step: a tree of tensors
    step(x, state)         one step: its output and the memory after it
    forward(x)             the whole sequence, however it is computed fastest

A tree is a dictionary of tensors and trees. ``step`` is a pure function: what it is not given it
does not know, and what it is given it does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias, Union, runtime_checkable

import torch
from torch import Tensor, nn

State: TypeAlias = Mapping[str, Union[Tensor, "State"]]
"""Tensors [batch, ...] by name; a module with parts keeps a tree of them."""


@runtime_checkable
class Stepping(Protocol):
    """What a module needs so that it runs a step at a time."""

    def initial_state(self, batch: int = 1) -> State:
        """The memory before the first step."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        """One step: x [batch, ...] to its output [batch, ...] and the memory after it."""


class Stepwise(nn.Module):
    """Base of modules with a memory; a subclass whose sequence form is faster overrides forward.

    Shape: [batch, time, ...] → [batch, time, ...].
    """

    time_axis: int = 1
    """The axis of a sequence along which steps follow each other."""
    chunk: int | None = None
    """Positions that a step takes at once, x being [batch, chunk, ...]; None: one, without axis."""

    def initial_state(self, batch: int = 1) -> State:
        """The memory before the first step: none."""
        return {}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return by_steps(self, x)[0]


Run = Callable[[str, Tensor], Tensor]
"""Runs one part, by its name, on a tensor."""


class Assembled(Stepwise):
    """A module made of parts with a memory each; what happens between them is written once.

    Between its parts a subclass only computes what is the same for a sequence and for a step:
    linear maps and functions of the last axis, sums, products.
    """

    def members(self) -> Mapping[str, Stepwise]:
        """The parts by name, which is also the name of their memory."""
        raise NotImplementedError

    def flow(self, x: Tensor, run: Run) -> Tensor:
        """The module, its parts called through ``run``."""
        raise NotImplementedError

    def initial_state(self, batch: int = 1) -> State:
        """The memories of those parts that have one."""
        states = {name: m.initial_state(batch) for name, m in self.members().items()}
        return {name: state for name, state in states.items() if state}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        members = self.members()
        after: dict[str, State] = {}

        def run(name: str, value: Tensor) -> Tensor:
            y, new = members[name].step(value, part(state, name) if name in state else {})
            if new:
                after[name] = new
            return y

        return self.flow(x, run), after

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        members = self.members()

        def run(name: str, value: Tensor) -> Tensor:
            y: Tensor = members[name](value)
            return y

        return self.flow(x, run)


def by_steps(module: Stepping, x: Tensor, state: State | None = None) -> tuple[Tensor, State]:
    """A sequence [batch, time, ...] step by step: all outputs, and the memory at the end."""
    state = module.initial_state(len(x)) if state is None else state
    chunk: int | None = getattr(module, "chunk", None)
    found = []
    for piece in x.unbind(1) if chunk is None else torch.split(x, chunk, 1):
        y, state = module.step(piece, state)
        found.append(y)
    return (torch.stack(found, 1) if chunk is None else torch.cat(found, 1)), state


def zeros(batch: int, *shape: int) -> Tensor:
    """A state that starts at zero."""
    return torch.zeros(batch, *shape)


def part(state: State, name: str) -> State:
    """The memory of one part of a module."""
    found = state[name]
    assert not isinstance(found, Tensor)
    return found


def held(state: State, name: str) -> Tensor:
    """One tensor of a memory."""
    found = state[name]
    assert isinstance(found, Tensor)
    return found
