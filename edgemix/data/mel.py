"""The front end of speech models: logarithmic mel bands, frame by frame as the sound comes in.

It stays outside the graph: a phone and a board have one of their own, and an FPGA takes features.
Frame t is made of the samples [t · HOP, t · HOP + WINDOW); no frame looks at later ones.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

Sound = npt.NDArray[np.float32]
"""Samples in [−1, 1] at RATE."""
Frames = npt.NDArray[np.float32]
"""[frames, BANDS]."""

RATE = 16_000
"""Samples a second."""
WINDOW = 512
"""Samples of a frame: 32 ms."""
HOP = 320
"""Samples from frame to frame: 20 ms."""
BANDS = 32
LOWEST, HIGHEST = 60.0, 7_600.0
"""Hz: the first band's lower and the last one's upper corner."""

FLOOR = 1e-10
"""Power that is added before the logarithm: 100 dB below a full-scale tone in one band."""
CENTRE, SPREAD = -16.0, 2.5
"""What is subtracted from the natural logarithm, and what it is divided by: about the mean and the
deviation over speech with noise, rounded, constants of the definition."""
LIMIT = 4.0


def bank() -> npt.NDArray[np.float64]:
    """Triangles on the mel scale [BANDS, WINDOW / 2 + 1], each of area one over its bins.

    mel(f) = 2595 log10(1 + f / 700), O'Shaughnessy, "Speech Communication", 1987.
    """
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    corners = 700 * (10 ** (np.linspace(low, high, BANDS + 2) / 2595) - 1)
    bins = np.arange(WINDOW // 2 + 1) * RATE / WINDOW
    rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
    falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
    triangles = np.maximum(np.minimum(rising, falling), 0)
    found: npt.NDArray[np.float64] = triangles / triangles.sum(1, keepdims=True)
    return found


_BANK = bank()
_HANN = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)


def log_mel(sound: Sound) -> Frames:
    """All frames of a sound [samples], values in [−LIMIT, LIMIT]; fewer than WINDOW give none."""
    count = max(0, (len(sound) - WINDOW) // HOP + 1)
    places = np.arange(count)[:, None] * HOP + np.arange(WINDOW)
    spectrum = np.fft.rfft(np.asarray(sound, np.float64)[places] * _HANN, axis=1)
    power = (np.abs(spectrum) ** 2 * (4 / WINDOW**2)) @ _BANK.T
    scaled = (np.log(power + FLOOR) - CENTRE) / SPREAD
    return np.clip(scaled, -LIMIT, LIMIT).astype(np.float32)


class Stream:
    """The same frames from pieces of sound of any length."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def push(self, sound: Sound) -> Frames:
        """The frames that this piece completes; none where it is too short."""
        self._rest = np.concatenate([self._rest, sound])
        frames = log_mel(self._rest)
        self._rest = self._rest[len(frames) * HOP :]
        return frames
