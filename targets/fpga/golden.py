"""Golden vectors: inputs that try a design hard, with the integers that the program answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from edgemix.program import Program
from edgemix.targets.fpga.precision import needed, raw_bounds

Floats = npt.NDArray[np.float32]
SAMPLES = 64


RUNS = 2
"""Sequences that the golden steps of a program with states make: the second shows the reset."""


@dataclass(frozen=True)
class Golden:
    """What goes in, sample by sample or step by step, and what has to come out."""

    inputs: Floats
    outputs: Floats
    states: tuple[Floats, ...] = ()
    """What each state holds after every step."""
    resets: npt.NDArray[np.bool_] | None = None
    """Before which steps the states go back to the start; None without states."""


def vectors(program: Program, samples: int = SAMPLES) -> Golden:
    """Inputs [n, …] on the grid of the program's input, and what the program gives for them.

    Both ends of the type and zero everywhere, then values from the whole range and, as real data
    has them, near its middle. To a program with states they are the steps of two sequences.
    """
    fixed = needed(program.input_encodings[0], "the input")
    lowest, highest = raw_bounds(fixed)
    shape = program.inputs[0].shape[1:]
    random = np.random.default_rng(0)
    flat = [np.full(shape, value) for value in (lowest, highest, 0)]
    middle, spread = (lowest + highest) / 2, (highest - lowest) / 8
    while len(flat) < samples:
        wide = random.integers(lowest, highest + 1, shape)
        near = np.clip(np.rint(random.normal(middle, spread, shape)), lowest, highest)
        flat += [wide, near]
    x = (np.stack(flat[:samples]) * 2.0**-fixed.fraction).astype(np.float32)
    if program.states:
        return answered(program, x.reshape(RUNS, samples // RUNS, *shape))
    return Golden(x, program.run(torch.from_numpy(x))[0].numpy())


def answered(program: Program, sequences: Floats) -> Golden:
    """Golden steps of sequences [n, steps, …], one after the other."""
    rollout = program.rollout(torch.from_numpy(sequences))
    resets = np.zeros(sequences.shape[:2], bool)
    resets[:, 0] = True
    x, y, *states = (
        a.reshape(-1, *a.shape[2:])
        for a in (sequences, *(t.numpy() for t in (*rollout.outputs, *rollout.states)))
    )
    return Golden(x, y, tuple(states), resets.ravel())
