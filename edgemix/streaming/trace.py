"""From a module that works on sequences to a Program of one step, its memory as states."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.exporting import export
from edgemix.program import Origin, Program, StateSpec
from edgemix.streaming import prove
from edgemix.streaming.forms import form_of
from edgemix.streaming.protocol import State, Stepwise, by_steps
from edgemix.streaming.tree import flatten, names, rebuild


def step_program(
    module: nn.Module, example: Tensor, origin: Origin, *, chunk: int | None = None
) -> Program:
    """The program of one step of a model, or of a chunk of steps.

    The step form is proven against the sequence form before it is traced.

    Args:
        module: what works on sequences.
        example: a sequence [1, time, ...], or with time on the axis that the module says.
        origin: where the module came from.
        chunk: steps that the program takes at once, its input being [1, chunk, ...]; None is one.

    Raises:
        InputError: the module has no step form (the message says why), the form differs from the
            sequence, its step is no pure function, or it cannot be exported.
    """
    module = module.eval()
    form = _form(module, example, origin).eval()
    sequence = example.movedim(form.time_axis, 1)
    stride = form.chunk or 1
    if sequence.shape[0] != 1 or sequence.shape[1] < 2 * stride or sequence.shape[1] % stride:
        raise InputError(
            f"an example of shape {tuple(example.shape)} cannot be taken apart into steps",
            at=origin.source,
            do=f"give one sequence of at least two steps of {stride}",
        )
    first = sequence[:, :stride] if form.chunk else sequence[:, 0]
    prove.check_pure(form, first)
    prove.prove(form, sequence.shape[1], tuple(sequence.shape[2:]))
    if chunk is not None:
        form = Chunk(form, chunk)
        first = torch.zeros(1, chunk * stride, *sequence.shape[2:])
    program = _traced(form, first, origin)
    prove.prove_program(program, form, 2 * (form.chunk or 1))
    return program


class Chunk(Stepwise):
    """Several steps at once, one after the other in one graph."""

    def __init__(self, form: Stepwise, steps: int) -> None:
        super().__init__()
        if steps < 1:
            raise InputError(f"a chunk of {steps} steps is none")
        self.form = form
        self.chunk = steps * (form.chunk or 1)

    def initial_state(self, batch: int = 1) -> State:  # noqa: D102
        return self.form.initial_state(batch)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:  # noqa: D102
        return by_steps(self.form, x, state)


def _form(module: nn.Module, example: Tensor, origin: Origin) -> Stepwise:
    try:
        form = form_of(module)
    except InputError as error:
        raise InputError(error.what, at=origin.source, do=error.do) from error
    if form is not None:
        return form
    ahead = prove.look_ahead(module, example)
    if ahead:
        raise InputError(
            f"{type(module).__name__} has no step form: its output at one position changes with "
            f"inputs {ahead} positions later and more",
            at=origin.source,
            do="deploy the whole sequence as one program (--unroll instead of --step)",
        )
    why = (
        "it gives no output for each step" if ahead is None else "though it looks at no later input"
    )
    raise InputError(
        f"{type(module).__name__} has no step form that edgemix knows, {why}",
        at=origin.source,
        do="give it initial_state(batch) and step(x, state), see edgemix.streaming.protocol",
    )


class _Flat(nn.Module):
    """One step with its memory as separate arguments."""

    def __init__(self, form: Stepwise) -> None:
        super().__init__()
        self.form = form
        self._like = form.initial_state(1)

    def forward(self, x: Tensor, state: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        y, after = self.form.step(x, rebuild(self._like, state))
        found = dict(flatten(after))  # whose order is the step's own
        return y, [found[name] for name, _ in flatten(self._like)]


def _traced(form: Stepwise, first: Tensor, origin: Origin) -> Program:
    initial = dict(flatten(form.initial_state(1)))
    called = names(form.initial_state(1))
    states = tuple(
        StateSpec(name, tuple(t.shape), str(t.dtype).removeprefix("torch."), _initial(t),
                  f"{name}_next")
        for name, t in initial.items()
    )  # fmt: skip
    # Two states that start as one tensor are two arguments: torch.export would take them for one.
    given: tuple[Any, ...] = (torch.zeros_like(first), [t.clone() for t in initial.values()])
    try:
        module = export(_Flat(form).eval(), given).module(check_guards=False)
    except Exception as error:  # torch.export raises many classes, none of them public
        reason = (str(error).strip().splitlines() or [repr(error)])[0]
        raise InputError(
            f"torch.export cannot take this step: {type(error).__name__}: {reason}",
            at=origin.source,
            do="make it export: no data-dependent Python control flow, fixed shapes",
        ) from error
    # One flat list of arguments and results, under the names of the states.
    holes = module.graph.find_nodes(op="placeholder")
    for node, name in zip(holes, ("x", *called), strict=True):
        node.name = node.target = name
    graph = export(g.flat(module), (given[0], *given[1]))
    program = Program.from_exported(graph, origin, states=states)
    return replace(program, inputs=(replace(program.inputs[0], name="x"),))


def _initial(state: Tensor) -> tuple[float, ...]:
    values = state.detach().flatten().tolist()
    return (values[0],) if len(set(values)) == 1 else tuple(values)
