"""What the reference models learn from, and are judged on: real data that needs no download.

``digits32``: scikit-learn's handwritten digits at 32×32, each seen at random poses with noise; the
500 digits that are held out elsewhere in edgemix are held out here too, at four poses each.
``series``: windows of the real series that ship with statsmodels; the last quarter of every series
is held out.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix.data import Data, digits

CONTEXT, HORIZON = 64, 16
HELDOUT_POSES = 4


@lru_cache(maxsize=4)
def digits32(part: str) -> Data:
    """``train`` (every digit at two poses) or ``heldout`` (at four): [n, 1, 32, 32]."""
    source = digits(part)
    poses = HELDOUT_POSES if part == "heldout" else 2
    generator = torch.Generator().manual_seed(1 if part == "heldout" else 2)
    x = torch.from_numpy(np.array(source.samples)).repeat(poses, 1, 1, 1)
    assert source.labels is not None
    return Data(f"digits32:{part}", posed(x, generator).numpy(), np.tile(source.labels, poses))


def posed(x: Tensor, generator: torch.Generator) -> Tensor:
    """Digits [n, 1, 8, 8] at 32×32: turned by up to 20°, scaled, moved, with noise."""
    n = len(x)
    angle = (torch.rand(n, generator=generator) - 0.5) * (40 * np.pi / 180)
    zoom = 0.85 + 0.4 * torch.rand(n, generator=generator)
    move = (torch.rand(n, 2, generator=generator) - 0.5) * 0.4
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    theta = torch.stack([cos, -sin, move[:, 0], sin, cos, move[:, 1]], 1).reshape(n, 2, 3)
    grid = torch.nn.functional.affine_grid(theta, [n, 1, 32, 32], align_corners=False)
    seen = torch.nn.functional.grid_sample(x, grid, align_corners=False)
    return seen + 0.15 * torch.randn(seen.shape, generator=generator)


@lru_cache(maxsize=2)
def series(part: str) -> Data:
    """Windows [n, 64, 1] of ``train`` or ``heldout``; what follows them is :func:`futures`."""
    return Data(f"series:{part}", _windows(part)[0])


@lru_cache(maxsize=2)
def futures(part: str) -> npt.NDArray[np.float32]:
    """The 16 values that follow every window of :func:`series`, on its scale: [n, 16]."""
    return _windows(part)[1]


def _windows(part: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    past, future = [], []
    for values in _all_series():
        split = int(len(values) * 0.75)
        values = values[:split] if part == "train" else values[split - CONTEXT :]
        for start in range(len(values) - CONTEXT - HORIZON + 1):
            window = values[start : start + CONTEXT + HORIZON]
            mean, spread = window[:CONTEXT].mean(), window[:CONTEXT].std() + 1e-6
            past.append((window[:CONTEXT] - mean) / spread)
            future.append((window[CONTEXT:] - mean) / spread)
    return (
        np.array(past, np.float32)[:, :, None],
        np.array(future, np.float32),
    )


def _all_series() -> list[npt.NDArray[np.float64]]:
    """CO₂ over Mauna Loa (weekly), sea surface of El Niño (monthly), sunspots (yearly)."""
    from statsmodels.datasets import co2, elnino, sunspots

    found = [
        co2.load_pandas().data["co2"].interpolate().to_numpy(),
        elnino.load_pandas().data.iloc[:, 1:].to_numpy().reshape(-1),
        sunspots.load_pandas().data["SUNACTIVITY"].to_numpy(),
    ]
    return [np.asarray(values, np.float64) for values in found]
