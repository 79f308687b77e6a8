"""A graph that was exported for one batch size, over any number of samples at once.

Views are the only operators that write the batch down: as the leading size of a shape. Leaving it
open makes the graph take any batch. Whether that is so is tried, not believed: the open graph and
the given one, mapped, run on the same samples. A graph that is not so simple stays mapped over
samples, which costs up to twice the time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.graph import aten
from edgemix.program import Program
from edgemix.rollout import Together, rollouts

_SHAPED = frozenset(
    {aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.expand.default}
)
_TRIED = 3
_AT_ONCE = 32
_NEAR = 1e-3
"""Of an output's range: sums in another order differ by 1e-6, a wrong axis by its whole size."""

Batched = Callable[..., tuple[Tensor, ...]]
"""From [n, ...] of each input to [n, ...] of each output."""


def open_batch(program: Program, module: GraphModule) -> bool:
    """Leave the batch of a program's graph open, in place; False where that is not possible.

    Args:
        program: without states, exported for a batch of one.
        module: its graph, which may be changed also if the answer is False.
    """
    if program.states or any(spec.shape[0] != 1 for spec in program.inputs):
        return False
    given = set(module.graph.find_nodes(op="placeholder"))
    for node in module.graph.nodes:
        if any(source in given for source in node.all_input_nodes):
            given.add(node)
        if node in given and node.target in _SHAPED:
            node.args = (node.args[0], [-1, *g.shape_of(node)[1:]], *node.args[2:])
    return _agrees(program, g.flat(module))


def _agrees(program: Program, module: GraphModule) -> bool:
    generator = torch.Generator().manual_seed(0)
    x = [torch.randn(_TRIED, *s.shape[1:], generator=generator) for s in program.inputs]
    with torch.no_grad():
        try:
            found = _tuple(module(*x))
        except (RuntimeError, TypeError):
            return False
        for i in range(_TRIED):
            for many, one in zip(found, program.call(*(t[i : i + 1] for t in x)), strict=True):
                if many.shape != (_TRIED, *one.shape[1:]):
                    return False
                span = max(float(one.nan_to_num().abs().max()), 1e-6)
                if not torch.allclose(many[i : i + 1], one, 0.0, _NEAR * span, equal_nan=True):
                    return False
    return True


def batched(program: Program) -> tuple[GraphModule, Batched, bool]:
    """A program's graph, to be changed, how to run it on samples, and whether it is mapped.

    What is added to the graph must not mix samples, and must be called with an axis for the batch
    in front. The function runs the graph as it is when it is called.
    """
    module = program.module()
    opened = open_batch(program, module)
    if not opened:
        module = program.module()
    flat = g.flat(module)
    if opened:
        return flat, lambda *x: _tuple(flat(*x)), False
    size = program.inputs[0].shape[0]

    def mapped(*inputs: Tensor) -> tuple[Tensor, ...]:
        runs = (x.reshape(-1, size, *x.shape[1:]) for x in inputs)
        found = torch.vmap(flat, randomness="different")(*runs)
        # What was reduced to one number a run has no axis of its own.
        return tuple(v.flatten(0, 1) if v.ndim > 1 else v for v in _tuple(found))

    return flat, mapped, True


def outputs(
    program: Program, x: Tensor, change: Callable[[GraphModule], None] | None = None
) -> Tensor:
    """A program's first output on samples [n, ...], some at a time; of a graph that was changed.

    Of a program with states on sequences [n, steps, ...], from its own states.
    """
    if program.states:
        if change is None:
            return program.run(x)[0]
        module = program.module()
        change(module)
        return torch.cat([found[0] for found in rollouts(program, (x,), changed=Together(module))])
    module, run, mapped = batched(program)
    if change is not None:
        change(module)
    size = program.inputs[0].shape[0] if mapped else _AT_ONCE
    with torch.no_grad():
        return torch.cat([run(some)[0] for some in torch.split(x, size)])


def _tuple(value: Any) -> tuple[Tensor, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
