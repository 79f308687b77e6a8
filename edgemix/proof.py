"""Fidelity: an artifact against the program it was made from, as a contract with a level."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from edgemix.encoding import Encoding
from edgemix.errors import InputError

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Contract:
    """What an artifact promises about its outputs, compared as integers.

    ``exact``: every value identical. ``lsb``: at least ``share`` of the values within ``lsb``
    steps. ``decisions``: the same largest class for at least ``share`` of the samples.
    ``relative``: at least ``share`` of the values within ``bound`` of the largest expected one.
    """

    level: Literal["exact", "lsb", "decisions", "relative"]
    lsb: int = 0
    share: float = 1.0
    bound: float = 0.0

    def __str__(self) -> str:
        if self.level == "exact":
            return "exact"
        bound = {
            "lsb": f"≤ {self.lsb} LSB",
            "decisions": "same decision",
            "relative": f"≤ {self.bound:.2g} of the range",
        }[self.level]
        return bound if self.share == 1.0 else f"{bound} for {self.share:.1%}"

    @classmethod
    def parse(cls, text: str) -> Contract:
        """``exact``, ``lsb:1``, ``lsb:1@99.9%``, ``relative:1e-4`` or ``decisions@99%``.

        Raises:
            InputError: the text is none of these.
        """
        match = re.fullmatch(
            r"(?P<level>exact|decisions|lsb:(?P<lsb>\d+)|relative:(?P<bound>[\d.]+(e-?\d+)?))"
            r"(?:@(?P<share>[\d.]+)%)?",
            text,
        )
        if match is None or (match["level"] == "exact" and match["share"]):
            raise InputError(
                f"no contract: {text}",
                do="use exact, lsb:1, lsb:1@99.9%, relative:1e-4 or decisions@99%",
            )
        share = float(match["share"]) / 100 if match["share"] else 1.0
        if not 0 < share <= 1:
            raise InputError(f"a contract's share must lie in (0 %, 100 %]: {text}")
        if match["lsb"]:
            return cls("lsb", int(match["lsb"]), share)
        if match["bound"]:
            return cls("relative", share=share, bound=float(match["bound"]))
        return cls("exact" if match["level"] == "exact" else "decisions", 0, share)


@dataclass(frozen=True)
class Fidelity:
    """How near an artifact comes to its program, on the same samples."""

    contract: Contract
    samples: int
    identical: float
    """Share of identical output values."""
    within: float
    """Share of output values within 1 LSB."""
    worst_lsb: int | None
    """Largest difference in steps of the output's encoding; None for an unquantized output."""
    worst_relative: float
    """Largest difference as a share of the largest expected output."""
    sqnr_db: float | None
    """Signal to difference, in dB; None where there is no difference at all."""
    decisions_equal: float
    """Share of samples with the same largest output."""
    accuracy: float | None = None
    """Share of right decisions of the artifact, where labels were given."""
    program_accuracy: float | None = None
    float_accuracy: float | None = None
    passed: bool = True
    why: str = ""


NO_SIGNAL_DB = -300.0
"""An SQNR that has no finite value: no signal, or NaN or Inf. JSON would write null for those,
and null says that there is no difference."""


def sqnr_db(reference: npt.ArrayLike, found: npt.ArrayLike) -> float | None:
    """10 · log10(Σ reference² / Σ (reference − found)²); None where both are identical."""
    r, f = np.asarray(reference, np.float64), np.asarray(found, np.float64)
    noise = float(np.sum((r - f) ** 2))
    if noise == 0.0:
        return None
    signal = float(np.sum(r**2))
    if signal == 0.0 or not np.isfinite(noise):
        return NO_SIGNAL_DB
    return 10.0 * float(np.log10(signal / noise))


def accuracy(outputs: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    """Share of samples [n, classes] whose largest output is the label [n].

    Of sequences [n, steps, classes] the last step's output counts.
    """
    found = np.asarray(outputs)
    decided = found[:, -1] if found.ndim == 3 else found
    return float(np.mean(np.argmax(decided, axis=-1) == np.asarray(labels)))


def compare(
    expected: Floats,
    found: Floats,
    encoding: Encoding | None,
    contract: Contract,
    *,
    labels: npt.NDArray[np.int64] | None = None,
    float_outputs: Floats | None = None,
) -> Fidelity:
    """Measure ``found`` (the artifact's outputs) against ``expected`` (the program's), [n, ...].

    Raises:
        InputError: shapes differ, or there are no samples.
    """
    if expected.shape != found.shape:
        raise InputError(f"the artifact gave {found.shape}, the program {expected.shape}")
    if len(expected) == 0:
        raise InputError("there are no samples to compare")
    if encoding is not None:
        steps = np.abs(encoding.integers(expected) - encoding.integers(found))
        worst: int | None = int(steps.max())
        # A contract counts steps of eight bits: float kernels are not exact to sixteen.
        steps = steps / 2 ** max(encoding.bits - 8, 0)
    else:
        steps = np.abs(expected - found) / max(float(np.ptp(expected)) / 255, 1e-30)
        worst = None
    largest = max(float(np.abs(expected).max()), 1e-30)
    relative = float(np.abs(expected.astype(np.float64) - found).max()) / largest
    flat = (len(expected), -1)
    same = np.argmax(expected.reshape(flat), -1) == np.argmax(found.reshape(flat), -1)
    finite = bool(np.isfinite(found).all())
    defined = bool(np.isfinite(expected).all())
    share = {
        "exact": float(np.mean(steps == 0)),
        "lsb": float(np.mean(steps <= contract.lsb)),
        "decisions": float(np.mean(same)),
        "relative": float(np.mean(np.abs(expected - found) <= contract.bound * largest)),
    }[contract.level]
    passed = finite and defined and share >= contract.share
    why = "" if passed else f"{share:.2%} of the outputs keep the contract {contract}"
    if not (finite and defined):
        why = f"the {'artifact' if defined else 'program itself'} gave NaN or Inf"
    return Fidelity(
        contract=contract,
        samples=len(expected),
        identical=float(np.mean(steps == 0)),
        within=float(np.mean(steps <= 1)),
        worst_lsb=worst,
        worst_relative=relative,
        sqnr_db=sqnr_db(expected, found),
        decisions_equal=float(np.mean(same)),
        accuracy=None if labels is None else accuracy(found, labels),
        program_accuracy=None if labels is None else accuracy(expected, labels),
        float_accuracy=None
        if labels is None or float_outputs is None
        else accuracy(float_outputs, labels),
        passed=passed,
        why=why,
    )
