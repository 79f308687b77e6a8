"""Programs with states over whole sequences: many at once, step after step.

A small step is mostly the interpreter's time, so sequences run beside each other: the graph of one
is mapped over all of them. Fixed-point values come out the same however many there are; the last
bits of floats may depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.grids import on_grid
from edgemix.threads import one_thread_each

if TYPE_CHECKING:
    from edgemix.program import Program

TOGETHER = 128
"""Sequences that run beside each other: more gain nothing, and take memory."""


@dataclass(frozen=True)
class Rollout:
    """What a program with states gives for whole sequences, step by step."""

    outputs: tuple[Tensor, ...]
    """As many as the program's, each [sequences, steps, ...]."""
    states: tuple[Tensor, ...]
    """What each state holds after every step, [sequences, steps, ...]."""


class Together:
    """A graph of one step for several streams at once: every tensor has one axis more in front."""

    def __init__(self, module: GraphModule) -> None:
        """Take a module of the graph; it is changed."""
        for node in list(module.graph.nodes):
            if g.is_quantize(node) and node.args[0].op != "get_attr":
                on_grid(module, node)
            elif g.is_dequantize(node) and g.is_constant(node):
                g.make_constant(module, node, g.dequantized(module, node))
        module.graph.eliminate_dead_code()
        self._step = torch.vmap(g.flat(module))

    def __call__(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """One step: [streams, ...] of all that the graph takes to all that it gives."""
        found: tuple[Tensor, ...] = self._step(*tensors)
        return found


def rollouts(
    program: Program,
    inputs: tuple[Tensor, ...],
    on_sequences: Callable[[int], None] = lambda _: None,
    changed: Together | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """Outputs and states [sequences, steps, ...] of some sequences after the others.

    Args:
        program: one with states.
        inputs: [sequences, steps, ...] each.
        on_sequences: called with the number of sequences that are done.
        changed: a graph in the place of the program's, which takes and gives the same.
    """
    count, steps = inputs[0].shape[:2]
    if count == 0 or steps == 0:
        yield tuple(torch.zeros(count, steps, *spec.shape[1:]) for spec in program.gives)
        return
    with one_thread_each(), torch.inference_mode():
        for start in range(0, count, TOGETHER):
            some = tuple(x[start : start + TOGETHER] for x in inputs)
            yield tuple(_streams(program, some, changed))
            on_sequences(min(start + TOGETHER, count))


def _streams(
    program: Program, inputs: tuple[Tensor, ...], changed: Together | None
) -> list[Tensor]:
    count, steps = inputs[0].shape[:2]
    found = [torch.zeros(count, steps, *spec.shape[1:]) for spec in program.gives]
    held = tuple(state.start().expand(count, *state.shape) for state in program.states)
    step: Any = changed or (program.together if count > 1 else _alone(program))
    taken = (tuple(x[:, t, None] for x in inputs) for t in range(steps))
    for t, given in enumerate(each_step(program, step, taken, held)):
        for tensor, value in zip(found, given, strict=True):
            tensor[:, t] = value[:, 0]
    return found


def each_step(
    program: Program,
    step: Callable[..., tuple[Tensor, ...]],
    inputs: Iterable[tuple[Tensor, ...]],
    held: tuple[Tensor, ...],
) -> Iterator[tuple[Tensor, ...]]:
    """What every step gives, its states handed on to the next.

    Args:
        program: one with states.
        step: from what the program takes to what it gives, of one stream or of several.
        inputs: of every step.
        held: the states before the first.
    """
    for taken in inputs:
        given = step(*taken, *held)
        held = given[len(program.outputs) :]
        yield given


def _alone(program: Program) -> Callable[..., tuple[Tensor, ...]]:
    def step(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(t[None] for t in program.call(*(t[0] for t in tensors)))

    return step
