"""Golden vectors: inputs that try a design hard, with the integers that the program answers."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from edgemix.program import Program
from edgemix.targets.fpga.precision import needed, raw_bounds

Floats = npt.NDArray[np.float32]
SAMPLES = 64


def vectors(program: Program, samples: int = SAMPLES) -> tuple[Floats, Floats]:
    """Inputs [n, …] on the grid of the program's input, and its outputs.

    Both ends of the type and zero everywhere, then values from the whole range and, as real data
    has them, near its middle.
    """
    fixed = needed(next(iter(program.encodings.values())), "the input")
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
    return x, program.run(torch.from_numpy(x))[0].numpy()
