"""Artifacts with states, a step at a time: in the child that runs them, and from outside.

A machine runs one stream: ``reset`` brings its memory back to the start, ``step`` takes one step's
inputs and gives its outputs and then its states, as real numbers. A target whose artifacts hold
their states themselves brings its own machine; for the others :class:`Carried` carries them.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgemix.child import Conversation, progress
from edgemix.errors import InputError
from edgemix.targets import arrays
from edgemix.targets.base import Arrays, Artifact, StateBinding, Target

_REPORTS = 50


class Machine(Protocol):
    """One stream through an artifact."""

    def reset(self) -> None:
        """Bring the memory back to the start."""

    def step(self, inputs: Arrays) -> Arrays:
        """One step: inputs [1, ...] to outputs and states [1, ...]."""


class Carried:
    """A machine whose artifact is a pure function: what it gives it is handed at the next step."""

    def __init__(
        self, artifact: Artifact, call: Callable[[Sequence[npt.NDArray[Any]]], Sequence[Any]]
    ) -> None:
        """Take the function, from all that the artifact takes to all that it gives."""
        self._artifact = artifact
        self._call = call
        self._held: list[npt.NDArray[Any]] = []
        self.reset()

    def reset(self) -> None:
        """Bring the memory back to the start."""
        self._held = [
            arrays.encode(state.spec.start().numpy(), state.takes)
            for state in self._artifact.states
            if state.takes is not None
        ]

    def step(self, inputs: Arrays) -> Arrays:
        """One step."""
        given = [arrays.encode(x, b) for x, b in zip(inputs, self._artifact.inputs, strict=True)]
        found = self._call([*given, *self._held])
        values = found[len(self._artifact.outputs) :]
        self._held = [_handed(q, s) for q, s in zip(values, self._artifact.states, strict=True)]
        return tuple(arrays.decode(q, b) for q, b in zip(found, self._artifact.gives, strict=True))


def _handed(value: npt.NDArray[Any], state: StateBinding) -> npt.NDArray[Any]:
    """A state as it came out, in the form in which it goes in."""
    assert state.takes is not None
    if state.takes.dtype == state.gives.dtype:
        return value
    return arrays.encode(arrays.decode(value, state.gives), state.takes)


def run_sequences(machine: Machine, request: Mapping[str, Any]) -> dict[str, Any]:
    """Run sequences [n, steps, ...], each from the start; the answer of a target's ``run``."""
    inputs = arrays.read(Path(request["inputs"]))
    artifact = Artifact.from_json(request["artifact"])
    count, steps = inputs[0].shape[:2]
    found = [np.zeros((count, steps, *b.spec.shape[1:]), np.float32) for b in artifact.gives]
    every = max(1, count * steps // _REPORTS)
    for i in range(count):
        machine.reset()
        for t in range(steps):
            values = machine.step(tuple(x[i, t][None] for x in inputs))
            for array, value in zip(found, values, strict=True):
                array[i, t] = value[0]
            if (i * steps + t) % every == 0:
                progress((i * steps + t) / (count * steps))
    arrays.save(Path(request["outputs"]), tuple(found))
    return {}


class Stepper:
    """An artifact with its state held, in a child process of its own.

    ::

        with Stepper(target, artifact, folder) as stepper:
            stepper.reset()
            for frame in frames:
                (scores,) = stepper.step(frame)
                stepper.state["membrane"]

    Every array has a batch axis of one in front, as the program's inputs have.
    """

    def __init__(self, target: Target, artifact: Artifact, folder: Path) -> None:
        """Start the artifact's runtime, at its initial state.

        Raises:
            InputError: the artifact has no states, or this machine cannot run it.
        """
        if not artifact.states:
            raise InputError("an artifact without states has no steps", do="use run")
        self._artifact = artifact
        request = {
            "machine": target.machine, "model": str(folder / artifact.main),
            "artifact": artifact.to_json(),
        }  # fmt: skip
        self._child = Conversation("edgemix.targets.steps:serve", request, tool=target.runtime)
        self.state: dict[str, npt.NDArray[np.float32]] = {}
        self.reset()

    def reset(self) -> None:
        """Back to the initial state."""
        self._child.ask(b"reset")
        self.state = {s.spec.name: s.spec.start().numpy() for s in self._artifact.states}

    def step(self, *inputs: npt.NDArray[np.float32]) -> Arrays:
        """One step's outputs; :attr:`state` then is the state after it.

        Raises:
            InputError: number, shape or type of the inputs is not what a step takes.
        """
        specs = [b.spec for b in self._artifact.inputs]
        if [x.shape for x in inputs] != [s.shape for s in specs]:
            raise InputError(
                f"a step was given inputs of shape {[x.shape for x in inputs]}",
                do=f"give {[s.shape for s in specs]}",
            )
        values = arrays.unpack(self._child.ask(arrays.pack(inputs)))
        outputs = len(self._artifact.outputs)
        names = [s.spec.name for s in self._artifact.states]
        self.state = dict(zip(names, values[outputs:], strict=True))
        return values[:outputs]

    def close(self) -> None:
        """End the runtime."""
        self._child.close()

    def __enter__(self) -> Stepper:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def serve(request: Mapping[str, Any]) -> Callable[[bytes], bytes]:
    """The child's side of a :class:`Stepper`."""
    module, _, name = request["machine"].partition(":")
    machine: Machine = getattr(importlib.import_module(module), name)(request)

    def answer(message: bytes) -> bytes:
        if message == b"reset":
            machine.reset()
            return b"done"
        return arrays.pack(machine.step(arrays.unpack(message)))

    return answer
