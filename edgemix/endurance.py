"""A long stream through a program with states: does its error stay bounded, do artifacts follow?

Samples are put behind each other, without a reset in between, to a stream of as many steps as were
asked for. The float and the quantized program run it freely, each with its own states.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.rollout import Rollout

Floats = npt.NDArray[np.float32]
POINTS = 100
"""Of a growth curve."""
STREAMS = 8
GROWTH = 2.0
"""By how much the median error of the second half may exceed that of the first."""


@dataclass(frozen=True)
class Growth:
    """How far a quantized state strays from the float one, step by step."""

    state: str
    bits: int
    steps: tuple[int, ...]
    """Of the curve's points; each stands for the steps up to it."""
    error: tuple[float, ...]
    """Root mean square of the difference, as a share of the float state's own up to then."""

    @property
    def bounded(self) -> bool:
        """Whether the second half of the stream is no worse than ``GROWTH`` times the first.

        By their medians: an error that comes and goes again does not grow.
        """
        half = len(self.error) // 2
        early, late = median(self.error[:half]), median(self.error[half:])
        return late <= GROWTH * max(early, 1e-6)


def stream(samples: Floats, steps: int, most: int = STREAMS) -> Tensor:
    """Sequences [n, time, ...] behind each other, as streams [m, steps, ...].

    What is left over is dropped; where there is too little for one stream, samples come again.
    """
    flat = samples[: most * -(-steps // samples.shape[1])].reshape(-1, *samples.shape[2:])
    if len(flat) < steps:
        flat = np.concatenate([flat] * -(-steps // len(flat)))
    count = len(flat) // steps
    return torch.from_numpy(flat[: count * steps].reshape(count, steps, *flat.shape[1:]).copy())


def growth(program: Program, real: Rollout, quantized: Rollout) -> tuple[Growth, ...]:
    """The error of every state of a quantized program over a stream.

    Raises:
        InputError: the stream has fewer than two steps.
    """
    steps = real.outputs[0].shape[1]
    if steps < 2:
        raise InputError("a stream of fewer than two steps shows no growth")
    ends = np.unique(np.linspace(0, steps, min(POINTS, steps) + 1).astype(int)[1:])
    found = []
    for spec, encoding, a, b in zip(
        program.states, program.state_encodings, real.states, quantized.states, strict=True
    ):
        square = (a - b).double().square().flatten(2).mean(2).mean(0)
        power = a.double().square().flatten(2).mean(2).mean(0)
        whole = float(power.mean().sqrt()) or 1.0
        parts = torch.tensor_split(square, torch.tensor(ends[:-1]))
        signals = [float(power[:end].mean().sqrt()) or whole for end in ends]
        error = tuple(float(p.mean().sqrt()) / s for p, s in zip(parts, signals, strict=True))
        bits = 32 if encoding is None else encoding.bits
        found.append(Growth(spec.name, bits, tuple(map(int, ends)), error))
    return tuple(found)


def last_step_lsb(
    expected: tuple[Tensor, ...], found: tuple[Floats, ...], encodings: tuple[Encoding | None, ...]
) -> int:
    """The largest difference of any state after the last step, in LSB of its encoding.

    Args:
        expected: the program's states [streams, steps, ...].
        found: the artifact's.
        encodings: theirs; a real state counts in millionths of its range.
    """
    worst = 0.0
    for a, b, encoding in zip(expected, found, encodings, strict=True):
        lsb = encoding.lsb if encoding else max(float(a.abs().max()), 1e-6) * 1e-6
        worst = max(worst, float(np.abs(a[:, -1].numpy() - b[:, -1]).max(initial=0.0)) / lsb)
    return round(worst)
