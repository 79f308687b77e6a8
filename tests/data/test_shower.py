"""The generated jets obey the conservation laws and the physics that their docstring promises."""

from __future__ import annotations

import numpy as np
import pytest

from edgemix.data import jets, shower
from edgemix.data.shower import ANGLE, GLUON, JET_PT, MASS, MIN_PT, QUARK, RADIUS, W, Z, shoot

labels = np.arange(10_000) % 5


@pytest.fixture(scope="module")
def seen() -> np.ndarray:
    return shoot(labels, 7)


@pytest.fixture(scope="module")
def exact() -> np.ndarray:
    return shoot(labels, 7, detector=False)


def momentum(jets: np.ndarray) -> np.ndarray:
    """Transverse momentum of the whole jets."""
    pt, phi = jets[..., 0], jets[..., 2]
    return np.hypot((pt * np.cos(phi)).sum(1), (pt * np.sin(phi)).sum(1))


def test_a_seed_makes_the_same_jets() -> None:
    first = shoot(labels[:200], 3)
    assert first.tobytes() == shoot(labels[:200], 3).tobytes()
    assert first.tobytes() != shoot(labels[:200], 4).tobytes()
    assert shoot(labels[:0], 3).shape == (0, shower.PARTICLES, 3)


def test_decay_and_shower_conserve_energy_and_momentum(exact: np.ndarray) -> None:
    mass, p = shower.mass(exact), momentum(exact)
    for kind, expected in MASS.items():
        np.testing.assert_allclose(mass[labels == kind], expected, rtol=1e-6)
    heavy = np.isin(labels, list(MASS))
    assert p[heavy].min() >= JET_PT[0] and p[heavy].max() <= JET_PT[1]
    # What a bare parton keeps is E + p along its axis; the mass of its shower comes out of p.
    plus = (np.hypot(mass, p) + p)[~heavy]
    assert plus.min() >= 2 * JET_PT[0] and plus.max() <= 2 * JET_PT[1]


@pytest.mark.parametrize("kind", [QUARK, GLUON])
def test_partons_stay_whole_as_often_as_the_emission_probability_says(kind: int) -> None:
    """exp(−∫∫ dP): the angles between the cutoff and 1, every z, on a fine grid."""
    plus, count = 6.0, 40_000
    v = np.exp((np.arange(2000) + 0.5) / 2000 * np.log(4 * 0.35 / plus))[:, None]
    z = ((np.arange(4000) + 0.5) / 4000)[None]
    k = z * (1 - z) * plus * v
    coupling = 12 * np.pi / (23 * np.log(np.maximum(k, 0.35) ** 2 / 0.2**2))
    quark = 4 / 3 * (1 + (1 - z) ** 2) / z
    gluon = 3 * (z / (1 - z) + (1 - z) / z + z * (1 - z)) + 2.5 * (z**2 + (1 - z) ** 2)
    density = coupling / np.pi * (gluon if kind == GLUON else quark) * (k > 0.35)
    expected = np.exp(-density.mean() * np.log(plus / (4 * 0.35)))
    rng = np.random.default_rng(0)
    owner, _ = shower.shower(
        np.full(count, plus), np.ones(count), np.full(count, kind == GLUON), rng
    )
    whole = (np.bincount(owner, minlength=count) == 1).mean()
    assert 0.02 < expected < 0.5
    assert abs(whole - expected) < 4 * np.sqrt(expected * (1 - expected) / count)


def test_masses_as_seen(exact: np.ndarray, seen: np.ndarray) -> None:
    """Losses lower the mass, turned particles raise it, smeared momenta do neither.

    Lower bound: what exact jets are left with when soft and wide particles are lost. Upper bound:
    turning every particle by σ in both directions adds 2 σ² Σ_{i≠j} pT_i pT_j < 2 σ² pT² to m².
    Both by three standard errors of a median.
    """
    near = (exact[..., 0] >= MIN_PT) & (np.hypot(exact[..., 1], exact[..., 2]) < RADIUS)
    left = shower.mass(np.where(near[..., None], exact, 0))
    mass = shower.mass(seen)
    for kind, expected in MASS.items():
        here = mass[labels == kind]
        low, high = np.percentile(here, [16, 84])
        error = 3 * 1.25 * (high - low) / 2 / np.sqrt(len(here))
        lower = np.median(left[labels == kind]) - error
        upper = np.sqrt(expected**2 + 2 * (ANGLE * JET_PT[1]) ** 2) + error
        assert lower < np.median(here) < upper
        assert upper / lower < MASS[Z] / MASS[W]


def test_gluons_radiate_more_than_quarks(seen: np.ndarray) -> None:
    """By less than C_A / C_F = 9/4, which the ratio only reaches at infinite energy."""
    number = (seen[..., 0] > 0).sum(1)
    ratio = number[labels == GLUON].mean() / number[labels == QUARK].mean()
    assert 1.3 < ratio < 9 / 4
    mass = shower.mass(seen)
    assert np.median(mass[labels == GLUON]) > 1.3 * np.median(mass[labels == QUARK])


def test_constituents_are_sorted_padded_and_inside(seen: np.ndarray) -> None:
    pt = seen[..., 0]
    assert (np.diff(pt, axis=1) <= 0).all()
    assert (seen[pt == 0] == 0).all()
    assert pt[pt > 0].min() >= MIN_PT
    assert np.hypot(seen[..., 1], seen[..., 2]).max() < RADIUS
    assert (pt > 0).sum(1).max() < shower.PARTICLES


def test_particles_are_the_hardest_constituents() -> None:
    x, y = jets.particles(500, 11, 32)
    few, _ = jets.particles(500, 11)
    assert x.shape == (500, 32, 3) and x.dtype == np.float32 and y.dtype == np.int64
    assert np.array_equal(few, x[:, :16])
    constituents = shoot(y, 11)[:, :32]
    there = constituents[..., 0] > 0
    assert (x[~there] == 0).all() and not there.all()
    np.testing.assert_allclose(np.exp(2 * x[..., 0][there]), constituents[..., 0][there], rtol=1e-5)
    np.testing.assert_allclose(x[..., 1:][there] / 5, constituents[..., 1:][there], atol=1e-6)


def test_features_of_jets_known_in_closed_form() -> None:
    """Three equal particles in a straight line, Δη = −0.1, 0, 0.1."""
    line = np.zeros((1, shower.PARTICLES, 3))
    line[0, :3] = [[100, -0.1, 0], [100, 0, 0], [100, 0.1, 0]]
    found = dict(zip([name for name, *_ in jets.FEATURES], jets._observables(line)[0], strict=True))
    e2, e3 = 4 / 90, 2e-3 / 27
    expected = {
        "multiplicity": 3, "ln mass": np.log(300 * np.sqrt((2 * (2 * np.cosh(0.1) + np.cosh(0.2) - 3)) / 9)),
        "Σ z ln z": -np.log(3), "C1, β = 0": 1 / 3, "ln C1, β = 1": np.log(e2),
        "ln C1, β = 2": np.log(0.06 / 9), "ln C2, β = 1": np.log(e3 / e2**2),
        "ln D2, β = 1": np.log(e3 / e2**3), "ln D2, α = 1, β = 2": np.log(e3 / (0.06 / 9) ** 1.5),
        "ln M2, β = 1": np.log(0.1 / 27 / e2), "ln N2, β = 1": np.log(0.01 / 27 / e2**2),
        "ln N2, β = 2": np.log(1e-4 / 27 / (0.06 / 9) ** 2),
    }  # fmt: skip
    assert found["ln groomed mass"] == pytest.approx(found["ln mass"])
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert np.isfinite(jets._observables(line * 0)).all()


def test_features_are_bounded_and_labelled() -> None:
    x, y = jets.features(300, 5)
    assert x.shape == (300, len(jets.FEATURES)) and y.tolist() == [k % 5 for k in range(300)]
    assert np.abs(x).max() <= jets.LIMIT
