"""Jets as a classifier takes them: their hardest particles, or sixteen features of their shape.

The jets come from :mod:`edgemix.data.shower`; label k is ``shower.CLASSES[k]``, and every class is
as frequent as the others. Values lie in [−4, 4], which suits eight-bit fixed point.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from itertools import combinations

import numpy as np
import numpy.typing as npt

from edgemix.data import shower
from edgemix.data.base import Data, check_split
from edgemix.data.shower import Floats

Samples = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

PARTS = {"train": (20_000, 1), "heldout": (5_000, 2)}
"""Jets and seed of the two parts: independent streams of random numbers."""

LIMIT = 4.0
ANGULAR_UNIT = 0.2
"""ΔR of 1; a jet's radius is then the limit."""

HARDEST = 16
"""Constituents that the features look at: the triples of all of them would be too many."""

GROOMED = 0.01
"""Momentum fraction below which a constituent does not count for the groomed mass."""

FEATURES = (
    ("multiplicity", 17.0, 8.5),
    ("ln mass", 4.57, 0.43),
    ("ln groomed mass", 4.48, 0.52),
    ("Σ z ln z", -2.04, 0.48),
    ("C1, β = 0", 0.405, 0.059),
    ("ln C1, β = 1", -3.04, 0.56),
    ("ln C1, β = 2", -4.74, 0.89),
    ("ln C2, β = 1", -2.41, 0.57),
    ("ln C2, β = 2", -3.82, 1.3),
    ("ln D2, β = 1", 0.48, 0.57),
    ("ln D2, β = 2", 0.51, 1.2),
    ("ln D2, α = 1, β = 2", -1.55, 0.34),
    ("ln M2, β = 1", -2.45, 0.4),
    ("ln M2, β = 2", -3.41, 0.69),
    ("ln N2, β = 1", -1.14, 0.24),
    ("ln N2, β = 2", -1.75, 0.57),
)
"""Name, median and half the distance from the 16 % to the 84 % quantile over the training jets,
rounded: constants of the definition. A ratio that few particles leave undefined is at the limit."""


def particles(n: int, seed: int, count: int = 16) -> Samples:
    """The ``count`` hardest particles [n, count, 3] of n jets, hardest first, and labels [n].

    ln(pT / GeV) / 2, Δη / 0.2, Δφ / 0.2; where a jet has fewer particles, zeros, which is also
    what a particle at the detector's threshold on the axis is.
    """
    labels = np.arange(n) % len(shower.CLASSES)
    hardest = shower.shoot(labels, seed)[:, :count]
    momentum = np.log(np.maximum(hardest[..., :1], shower.MIN_PT) / shower.MIN_PT) / 2
    x = np.concatenate([momentum, hardest[..., 1:] / ANGULAR_UNIT], -1)
    return np.clip(x, -LIMIT, LIMIT).astype(np.float32), labels


def features(n: int, seed: int) -> Samples:
    """Sixteen standardized features [n, 16] of n jets, see ``FEATURES``, and labels [n].

    The observables of Coleman et al., JINST 13 (2018) T01003: energy correlations e of the
    momentum fractions z, with angles to the power β, and their ratios C, D, M and N (Larkoski,
    Salam, Thaler, JHEP 06 (2013) 108; Larkoski, Moult, Neill, JHEP 12 (2014) 009; Moult, Necib,
    Thaler, JHEP 12 (2016) 153).
    """
    labels = np.arange(n) % len(shower.CLASSES)
    jets = shower.shoot(labels, seed)
    raw = np.concatenate([_observables(part) for part in np.array_split(jets, n // 1000 + 1)])
    _, centre, spread = (np.array(column) for column in zip(*FEATURES, strict=True))
    x = (raw - centre.astype(float)) / spread.astype(float)
    return np.clip(x, -LIMIT, LIMIT).astype(np.float32), labels


MAKERS: dict[str, Callable[[int, int], Samples]] = {
    "jets": particles,
    "jets32": partial(particles, count=32),
    "jet-features": features,
}
"""From the number of jets and a seed to samples and labels. The same seed is the same jets."""


@cache
def part(name: str, split: str) -> Data:
    """20,000 jets to train or 5,000 held out, as ``MAKERS[name]`` gives them.

    Raises:
        InputError: ``split`` is neither ``train`` nor ``heldout``.
    """
    check_split(name, split)
    samples, labels = MAKERS[name](*PARTS[split])
    samples.flags.writeable = labels.flags.writeable = False  # every caller gets the same
    return Data(f"{name}:{split}", samples, labels)


def _observables(jets: Floats) -> Floats:
    """``FEATURES`` [n, 16] of constituents [n, p, 3], not yet standardized."""
    hardest = jets[:, :HARDEST]
    z = hardest[..., 0] / np.maximum(hardest[..., 0].sum(1, keepdims=True), shower.MIN_PT)
    first, second = np.triu_indices(HARDEST, 1)
    distance = np.hypot(*np.moveaxis(hardest[:, first, 1:] - hardest[:, second, 1:], -1, 0))
    pair = z[:, first] * z[:, second]
    number = np.zeros((HARDEST, HARDEST), np.int64)
    number[first, second] = np.arange(len(first))
    triples = np.array(list(combinations(range(HARDEST), 3))).T
    i, j, k = triples
    triple = z[:, i] * z[:, j] * z[:, k]
    sides = np.sort(distance[:, np.stack([number[i, j], number[i, k], number[j, k]])], axis=1)
    e2 = {b: (pair * distance**b).sum(1) for b in (1, 2)}
    # The product of the smallest one, two and three angles of every triple.
    v1, v2, v3 = (
        {b: (triple * sides[:, :count].prod(1) ** b).sum(1) for b in (1, 2)} for count in (1, 2, 3)
    )
    groomed = np.where(z[..., None] >= GROOMED, hardest, 0)
    return np.stack(
        [
            (jets[..., 0] > 0).sum(1),
            _log(shower.mass(jets)),
            _log(shower.mass(groomed)),
            (z * np.log(np.maximum(z, 1e-9))).sum(1),
            pair.sum(1),
            *(_log(e2[b]) for b in (1, 2)),
            *(_log(v3[b]) - 2 * _log(e2[b]) for b in (1, 2)),
            *(_log(v3[b]) - 3 * _log(e2[b]) for b in (1, 2)),
            _log(v3[1]) - 1.5 * _log(e2[2]),
            *(_log(v1[b]) - _log(e2[b]) for b in (1, 2)),
            *(_log(v2[b]) - 2 * _log(e2[b]) for b in (1, 2)),
        ],
        axis=1,
    )


def _log(x: Floats) -> Floats:
    result: Floats = np.log(np.maximum(x, 1e-12))  # of one particle there are no pairs
    return result
