"""A small parton shower: jets of five kinds, generated instead of downloaded.

The task is that of the public LHC jet data (Duarte et al., "Fast inference of deep neural networks
in FPGAs for particle physics", JINST 13 (2018) P07027; Coleman et al., "The importance of
calorimetry for highly-boosted jet substructure", JINST 13 (2018) T01003; Moreno et al., "JEDI-net",
EPJC 80 (2020) 58): tell gluons, light quarks, W, Z and top apart by jets of pT ≈ 1 TeV, R = 0.8.
It is a model of that data, and numbers on it are not numbers on that data.

**Decay.** W and Z decay to two quarks, a top to b + W → three quarks, isotropically in their rest
frames (no polarization, no widths: the detector is coarser than either), then are boosted.

**Shower.** A parton with light-cone momentum p⁺ splits at angles v that fall,

    dP = α_s(k) / π · dv / v · P(z) dz,     k = z (1 − z) p⁺ v > 0.35 GeV,

with the Altarelli–Parisi functions (Nucl. Phys. B 126 (1977) 298)

    P_q→qg = C_F (1 + (1 − z)²) / z,    z the gluon's part,
    P_g→gg = C_A (2 (1 − z) / z + z (1 − z)),
    P_g→qq = n_f T_R (z² + (1 − z)²)

(the second is half of the symmetric form, its pole at z = 1 moved to z = 0), and both parts go on
from v (angular ordering: Ellis, Stirling, Webber, "QCD and Collider Physics", chapter 5). The veto
algorithm draws the angles (Sjöstrand et al., JHEP 05 (2006) 026, section 4.2). v is the tangent of
half the angle to the parton's axis, so boosts along the axis only scale it. In a rest frame every
quark radiates into its hemisphere, v < 1; a bare quark or gluon up to the jet's radius. The momenta
of showered decay products are then rescaled along their axis, so that energy and momentum, hence
the mass, are conserved exactly (as in Herwig++: Bähr et al., EPJC 58 (2008) 639). The shower goes
on until close to Λ, and partons stand for hadrons (local parton–hadron duality: Azimov et al.,
Z. Phys. C 27 (1985) 65).

**Detector.** Momenta are smeared by 0.5 / √(pT / GeV) ⊕ 5 %, angles by 0.02: between what a
tracker and what a hadron calorimeter can do. What is then below 1 GeV or outside the radius is
lost.

There is no pile-up, no radiation from the incoming partons, and b quarks are massless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

CLASSES = ("gluon", "quark", "W", "Z", "top")
"""In the order of the labels."""

GLUON, QUARK, W, Z, TOP = range(5)
MASS = {W: 80.4, Z: 91.2, TOP: 172.8}
"""In GeV, as every momentum here."""

PARTICLES = 128
"""Constituents that a jet may hold; the softest beyond are lost."""

JET_PT = (950.0, 1050.0)
"""Of what makes the jet; uniform."""
RADIUS = 0.8
MIN_PT = 1.0
STOCHASTIC, CONSTANT, ANGLE = 0.5, 0.05, 0.02

_C_F, _C_A, _T_R, _FLAVOURS = 4 / 3, 3.0, 0.5, 5
_CUTOFF = 0.35
_LAMBDA = 0.2


@dataclass(frozen=True)
class _Partons:
    owner: Ints
    gluon: Flags
    fraction: Floats
    """Of the ancestor's p⁺."""
    offset: Floats
    """[k, 2]: transverse momentum by p⁺."""
    limit: Floats
    """Angles v at which it may still split lie below."""

    def part(self, which: Flags) -> _Partons:
        return _Partons(
            self.owner[which],
            self.gluon[which],
            self.fraction[which],
            self.offset[which],
            self.limit[which],
        )

    @staticmethod
    def joined(parts: Sequence[_Partons]) -> _Partons:
        return _Partons(
            np.concatenate([p.owner for p in parts]),
            np.concatenate([p.gluon for p in parts]),
            np.concatenate([p.fraction for p in parts]),
            np.concatenate([p.offset for p in parts]),
            np.concatenate([p.limit for p in parts]),
        )


def shoot(classes: Ints, seed: int, *, detector: bool = True) -> Floats:
    """Jets of these classes: constituents [n, PARTICLES, 3] by falling pT, padded with zeros.

    A constituent is massless: its pT in GeV and Δη, Δφ to the jet's axis. The same seed gives the
    same jets; numpy's log and sin may differ in the last digit from one processor to another.

    Args:
        classes: positions in ``CLASSES``.
        seed: of the random numbers.
        detector: whether to smear, and to lose what is soft or wide.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    owners, momenta = [np.empty(0, np.int64)], [np.empty((0, 4))]
    for kind in range(len(CLASSES)):
        jets = np.flatnonzero(classes == kind)
        pt = rng.uniform(*JET_PT, len(jets))
        if kind in MASS:
            owner, p = _decayed(kind, len(jets), rng)
            p = _stretched(p, np.exp(np.arcsinh(pt / MASS[kind]))[owner])
        else:
            widest = np.full(len(jets), np.tan(RADIUS / 2))
            owner, p = shower(2 * pt, widest, np.full(len(jets), kind == GLUON), rng)
        owners.append(jets[owner])
        momenta.append(p[:, [0, 3, 1, 2]])  # the axis was z, the beam shall be
    return _seen(np.concatenate(owners), np.concatenate(momenta), len(classes), rng, detector)


def mass(jets: Floats) -> Floats:
    """Invariant mass [n] of constituents [n, p, 3]."""
    total = _vectors(jets).sum(1)
    square: Floats = np.maximum(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1), 0)
    return np.sqrt(square)


def shower(
    plus: Floats, widest: Floats, gluon: Flags, rng: np.random.Generator
) -> tuple[Ints, Floats]:
    """What the partons [n] become: for every final one its ancestor and E, px, py, pz.

    Args:
        plus: light-cone momentum E + pz of the partons, which fly along z.
        widest: tangent of half the angle up to which each may radiate.
        gluon: whether it is a gluon or a quark.
        rng: random numbers.
    """
    count = len(plus)
    rest = _Partons(np.arange(count), gluon, np.ones(count), np.zeros((count, 2)), widest)
    final: list[_Partons] = []
    while not final or len(rest.owner):
        # z (1 − z) is at most one quarter.
        ends = rest.fraction * plus[rest.owner] * rest.limit <= 4 * _CUTOFF
        final.append(rest.part(ends))
        rest = _evolved(rest.part(~ends), plus, rng)
    done = _Partons.joined(final)
    forward = done.fraction * plus[done.owner]
    backward = forward * (done.offset**2).sum(1)
    transverse = forward[:, None] * done.offset
    energy, z = (forward + backward) / 2, (forward - backward) / 2
    return done.owner, np.column_stack([energy, transverse, z])


def _evolved(partons: _Partons, plus: Floats, rng: np.random.Generator) -> _Partons:
    """Every parton's angle lowered once; there, it splits or not."""
    momentum, count = partons.fraction * plus[partons.owner], len(partons.owner)
    gluon = partons.gluon
    least = _CUTOFF / (momentum * partons.limit)
    # Above all three functions, and integrable: colour / z between least and 1.
    colour = np.where(gluon, 2 * _C_A + _FLAVOURS * _T_R, 2 * _C_F)
    rate = _coupling(_CUTOFF) / np.pi * colour * -np.log(least)
    limit = partons.limit * rng.random(count) ** (1 / rate)
    z = least ** rng.random(count)
    k = z * (1 - z) * momentum * limit
    to_quarks = _FLAVOURS * _T_R * (z**2 + (1 - z) ** 2)
    to_gluons = _C_A * (2 * (1 - z) / z + z * (1 - z))
    weight = np.where(gluon, to_gluons + to_quarks, _C_F * (1 + (1 - z) ** 2) / z)
    weight *= _coupling(np.maximum(k, _CUTOFF))
    splits = rng.random(count) * _coupling(_CUTOFF) * colour / z < weight * (k > _CUTOFF)
    quarks = gluon & (rng.random(count) * (to_gluons + to_quarks) < to_quarks) & splits
    turn = rng.uniform(0, 2 * np.pi, count)
    apart = limit[:, None] * np.stack([np.cos(turn), np.sin(turn)], 1)
    z = np.where(splits, z, 0)
    owner, fraction, offset = partons.owner, partons.fraction, partons.offset
    harder = _Partons(
        owner, gluon & ~quarks, fraction * (1 - z), offset - z[:, None] * apart, limit
    )
    softer = _Partons(owner, ~quarks, fraction * z, offset + (1 - z)[:, None] * apart, limit)
    return _Partons.joined([harder, softer.part(splits)])


def _coupling(k: Floats | float) -> Floats:
    """α_s at one loop."""
    strength: Floats = 12 * np.pi / ((33 - 2 * _FLAVOURS) * 2 * np.log(k / _LAMBDA))
    return strength


def _decayed(kind: int, count: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """W, Z or top at rest: which of them each final parton belongs to, and its momentum."""
    parent, hemisphere, quark = MASS[kind], np.ones(count), np.zeros(count, bool)
    recoil = MASS[W] if kind == TOP else 0.0
    plus = np.full(count, parent - recoil**2 / parent)
    first = shower(plus, hemisphere, quark, rng)
    second = _decayed(W, count, rng) if kind == TOP else shower(plus, hemisphere, quark, rng)
    masses = [_invariant(*prong, count) for prong in (first, second)]
    owners, momenta = [], []
    for (owner, p), mine, other in zip((first, second), masses, reversed(masses), strict=True):
        energy = (parent**2 + mine**2 - other**2) / (2 * parent)
        forward = energy + np.sqrt(np.maximum(energy**2 - mine**2, 0))
        now = np.bincount(owner, p[:, 0] + p[:, 3], count)
        owners.append(owner)
        momenta.append(_stretched(p, (forward / now)[owner]))
    momenta[1] = momenta[1] * [1, 1, -1, -1]
    owner, p = np.concatenate(owners), np.concatenate(momenta)
    p = _turned(p, owner, count, rng)
    again = np.flatnonzero(masses[0] + masses[1] >= parent)  # no momentum is left: a rare shower
    if len(again):
        kept = ~np.isin(owner, again)
        new_owner, new_p = _decayed(kind, len(again), rng)
        owner = np.concatenate([owner[kept], again[new_owner]])
        p = np.concatenate([p[kept], new_p])
    return owner, p


def _invariant(owner: Ints, p: Floats, count: int) -> Floats:
    total = np.stack([np.bincount(owner, column, count) for column in p.T], 1)
    square: Floats = np.maximum(total[:, 0] ** 2 - (total[:, 1:] ** 2).sum(1), 0)
    return np.sqrt(square)


def _stretched(p: Floats, factor: Floats) -> Floats:
    """Boosted along z: E + pz by the factor, E − pz by its inverse."""
    forward, backward = (p[:, 0] + p[:, 3]) * factor, (p[:, 0] - p[:, 3]) / factor
    return np.column_stack([(forward + backward) / 2, p[:, 1:3], (forward - backward) / 2])


def _turned(p: Floats, owner: Ints, count: int, rng: np.random.Generator) -> Floats:
    """Every owner's z axis in a direction of its own; its shower has no preferred azimuth."""
    c, phi = rng.uniform(-1, 1, count)[owner], rng.uniform(0, 2 * np.pi, count)[owner]
    s = np.sqrt(1 - c**2)
    energy, x, y, z = p.T
    x, z = c * x + s * z, c * z - s * x
    x, y = np.cos(phi) * x - np.sin(phi) * y, np.sin(phi) * x + np.cos(phi) * y
    return np.column_stack([energy, x, y, z])


def _vectors(constituents: Floats) -> Floats:
    """E, px, py, pz of massless constituents (pT, η, φ)."""
    pt, eta, phi = np.moveaxis(constituents, -1, 0)
    parts = (np.cosh(eta), np.cos(phi), np.sin(phi), np.sinh(eta))
    return np.stack([pt * part for part in parts], -1)


def _seen(owner: Ints, p: Floats, count: int, rng: np.random.Generator, detector: bool) -> Floats:
    """The jets [count, PARTICLES, 3] as the detector, or a perfect one, sees these partons."""
    pt = np.hypot(p[:, 1], p[:, 2])
    eta, phi = np.arcsinh(p[:, 3] / pt), np.arctan2(p[:, 2], p[:, 1])
    if detector:
        width = np.sqrt(STOCHASTIC**2 / pt + CONSTANT**2)
        pt = pt * (1 + width * rng.standard_normal(len(pt)))
        eta = eta + ANGLE * rng.standard_normal(len(pt))
        phi = phi + ANGLE * rng.standard_normal(len(pt))
        hard = pt >= MIN_PT
        owner, pt, eta, phi = owner[hard], pt[hard], eta[hard], phi[hard]
    p = _vectors(np.stack([pt, eta, phi], 1))
    total = np.stack([np.bincount(owner, column, count) for column in p.T], 1)
    eta = eta - np.arcsinh(total[:, 3] / np.hypot(total[:, 1], total[:, 2]))[owner]
    phi = phi - np.arctan2(total[:, 2], total[:, 1])[owner]
    phi = (phi + np.pi) % (2 * np.pi) - np.pi
    if detector:
        near = np.hypot(eta, phi) < RADIUS
        owner, pt, eta, phi = owner[near], pt[near], eta[near], phi[near]
    order = np.lexsort((-pt, owner))
    owner, constituents = owner[order], np.stack([pt, eta, phi], 1)[order]
    rank = np.arange(len(owner)) - np.searchsorted(owner, owner)
    fits = rank < PARTICLES
    jets = np.zeros((count, PARTICLES, 3))
    jets[owner[fits], rank[fits]] = constituents[fits]
    return jets
