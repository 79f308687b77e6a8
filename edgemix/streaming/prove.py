"""A step form must give what the sequence gives, at every step, before anything is built on it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.streaming.protocol import State, Stepwise, by_steps
from edgemix.streaming.tree import flatten

TOLERANCE = 1e-4
"""Largest difference of one step, as a share of the outputs' range: sums in another order give
1e-6, a step form that is wrong 1e-2 and more."""
SEQUENCES = 4


@dataclass(frozen=True)
class Equivalence:
    """How near the step form comes to the sequence form."""

    worst: float
    """Largest difference at any step, as a share of the outputs' range."""
    by_step: tuple[float, ...]
    """The same, for each step."""


def prove(form: Stepwise, length: int, sample: tuple[int, ...]) -> Equivalence:
    """Compare both forms on random sequences, step by step.

    Args:
        form: what to compare.
        length: positions of the sequences.
        sample: shape of one position.

    Raises:
        InputError: they differ; the first step that does is named.
    """
    x = _random(length, sample)
    with torch.no_grad():
        whole = form(x.movedim(1, form.time_axis)).movedim(form.time_axis, 1)
        stepped, _ = by_steps(form, x)
    return _compared(whole, stepped)


def prove_program(program: Program, form: Stepwise, length: int) -> Equivalence:
    """Compare a traced step with the form that it was traced from, over ``length`` positions.

    Raises:
        InputError: they differ; the first step that does is named.
    """
    shape = program.inputs[0].shape[1:]
    x = _random(length, shape if form.chunk is None else shape[1:])
    with torch.no_grad():
        whole, _ = by_steps(form, x)
    pieces = x if form.chunk is None else torch.unflatten(x, 1, (-1, form.chunk))
    stepped = program.run(pieces)[0]
    return _compared(whole, stepped if form.chunk is None else stepped.flatten(1, 2))


def _compared(whole: Tensor, stepped: Tensor) -> Equivalence:
    if whole.shape != stepped.shape:
        raise InputError(
            f"the sequence form gives {tuple(whole.shape[1:])}, its steps give "
            f"{tuple(stepped.shape[1:])}",
            do="give one output for each step in both forms",
        )
    span = max(float(whole.max() - whole.min()), 1e-6)
    errors = ((whole - stepped).abs().movedim(1, 0).flatten(1).amax(1) / span).tolist()
    wrong = next((i for i, error in enumerate(errors) if not error <= TOLERANCE), None)
    if wrong is not None:
        raise InputError(
            f"step {wrong} differs from the sequence form by {errors[wrong]:.2g} of its range",
            do="compare initial_state and step with forward: they must be the same model",
        )
    return Equivalence(max(errors), tuple(errors))


def look_ahead(module: nn.Module, example: Tensor) -> int | None:
    """How many positions ahead of an output the model reads, None where its output has no steps.

    Found by changing the end of a sequence [batch, time, ...] and looking where outputs change.
    """
    x = torch.randn(example.shape, generator=torch.Generator().manual_seed(0))
    changed = x.clone()
    middle = x.shape[1] // 2
    changed[:, middle:] += 1.0
    with torch.no_grad():
        before, after = module(x), module(changed)
    if not isinstance(before, Tensor) or before.ndim < 2 or before.shape[1] != x.shape[1]:
        return None
    differs = (before != after).movedim(1, 0).flatten(1).any(1)
    return max(0, middle - int(differs.to(torch.int64).argmax())) if differs.any() else 0


def check_pure(form: Stepwise, like: Tensor) -> None:
    """Run two steps and refuse the form if one of them is no pure function.

    Args:
        form: what to check.
        like: a step's input; random ones of its shape are given.

    Raises:
        InputError: the step changes its argument, remembers something in an attribute, or gives
            back a memory of another form.
    """
    generator = torch.Generator().manual_seed(0)
    state = form.initial_state(1)
    for _ in range(2):  # the first may not show what is done to a memory of zeros
        state = _checked(form, torch.randn(like.shape, generator=generator), state)


def _checked(form: Stepwise, x: Tensor, state: State) -> State:
    given, before = x.clone(), dict(flatten(state))
    copies = {name: tensor.clone() for name, tensor in before.items()}
    attributes = _attributes(form)
    with torch.no_grad():
        _, after = form.step(x, state)
        if not torch.equal(given, x):
            raise InputError("the step changes its input", do="compute a new tensor instead")
        for name, tensor in before.items():
            if not torch.equal(tensor, copies[name]):
                raise InputError(
                    f"the step changes the state {name} that it was given",
                    do="return the new value, and leave the old one alone",
                )
    hidden = [name for name, value in _attributes(form).items() if attributes.get(name) != value]
    if hidden:
        raise InputError(
            f"the step remembers something in {hidden[0]}",
            do="hand it from step to step as a state",
        )
    shapes = {name: tuple(t.shape) for name, t in copies.items()}
    found = {name: tuple(t.shape) for name, t in flatten(after)}
    if shapes != found:
        name = next(n for n in [*shapes, *found] if shapes.get(n) != found.get(n))
        raise InputError(
            f"the state {name} goes in as {shapes.get(name)} and comes out as {found.get(name)}",
            do="a step must give every state back in the shape in which it takes it",
        )
    return after


def _attributes(form: nn.Module) -> dict[str, object]:
    """What a step could hide something in: buffers, and everything else that modules carry."""
    found: dict[str, object] = {}
    for path, module in form.named_modules():
        for name, value in vars(module).items():
            if not name.startswith("_") or isinstance(value, (Tensor, int, float)):
                found[f"{path}.{name}".lstrip(".")] = _print(value)
        for name, buffer in module.named_buffers(recurse=False):
            found[f"{path}.{name}".lstrip(".")] = _print(buffer)
    return found


def _print(value: object) -> object:
    if isinstance(value, Tensor):
        return (id(value), value._version)
    if isinstance(value, (list, tuple)):
        return tuple(_print(v) for v in value)
    if isinstance(value, dict):
        return tuple((k, _print(v)) for k, v in value.items())
    return value if isinstance(value, (int, float, str, bool, type(None))) else id(value)


def _random(length: int, sample: tuple[int, ...]) -> Tensor:
    return torch.randn((SEQUENCES, length, *sample), generator=torch.Generator().manual_seed(0))
