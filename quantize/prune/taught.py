"""A program with states as a function like others: of one step, or of whole sequences.

A step's result depends on all steps before, so what pruning leaves cannot be fitted to whole
sequences at once. Each step can, given the states that the whole model has then: teacher forcing
(Williams & Zipser, "A Learning Algorithm for Continually Running Fully Recurrent Neural Networks",
Neural Computation 1989).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.program import Program
from edgemix.rollout import each_step

_STEPS = 4096
"""Drawn from all steps of all sequences: they are much alike."""


def one_step(program: Program) -> Program:
    """The same graph with states that are inputs and outputs like others."""
    if not program.states:
        return program
    return replace(program, inputs=program.takes, outputs=program.gives, states=())


def given(program: Program, samples: Tensor) -> tuple[Tensor, ...]:
    """What :func:`one_step` takes, [n, ...] each.

    Args:
        program: with one input.
        samples: [n, ...]; of a program with states [n, steps, ...].
    """
    if not program.states:
        return (samples,)
    after = program.rollout(samples).states
    before = [
        torch.cat([state.start().expand(len(x), 1, *state.shape[1:]), x[:, :-1]], 1)
        for state, x in zip(program.states, after, strict=True)
    ]
    everything = [x.flatten(0, 1) for x in (samples, *before)]
    count = len(everything[0])
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:_STEPS]
    return tuple(x[order] for x in everything)


def trainable(program: Program) -> tuple[GraphModule, Callable[[Tensor], Tensor]]:
    """A program's graph, to be changed, and its first output as slopes go through it.

    Samples are [n, ...]; of a program with states sequences [n, steps, ...], each from the initial
    states, through which slopes go as well.
    """
    if not program.states:
        module, run, _ = batched(program)
        return module, lambda x: run(x)[0]
    module = g.flat(program.module())
    step = torch.vmap(module)

    def followed(x: Tensor) -> Tensor:
        held = tuple(s.start().expand(len(x), *s.shape) for s in program.states)
        taken = ((x[:, t, None],) for t in range(x.shape[1]))
        found = [given[0][:, 0] for given in each_step(program, step, taken, held)]
        return torch.stack(found, 1)

    return module, followed
