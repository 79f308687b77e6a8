"""Contracts: what passes, what fails, and what a failure says."""

from __future__ import annotations

import numpy as np
import pytest

from edgemix.encoding import Encoding
from edgemix.errors import InputError
from edgemix.proof import NO_SIGNAL_DB, Contract, compare, sqnr_db

STEP = 0.5
ENCODING = Encoding.per_tensor(STEP)
REFERENCE = np.array([[0.0, 1.0, 2.0], [3.0, 1.0, 0.0]], np.float32)


def off_by(lsb: int) -> np.ndarray:
    found = REFERENCE.copy()
    found[0, 0] += lsb * STEP
    return found


@pytest.mark.parametrize(
    ("contract", "lsb", "passed"),
    [
        ("exact", 0, True), ("exact", 1, False), ("lsb:1", 1, True), ("lsb:1", 2, False),
        ("lsb:1@80%", 2, True), ("lsb:1@90%", 2, False), ("decisions", 2, True),
        ("decisions", 6, False), ("decisions@50%", 6, True),
    ],
)  # fmt: skip
def test_levels(contract: str, lsb: int, passed: bool) -> None:
    fidelity = compare(REFERENCE, off_by(lsb), ENCODING, Contract.parse(contract))
    assert fidelity.passed is passed
    assert fidelity.worst_lsb == lsb
    assert bool(fidelity.why) is not passed


def test_relative_counts_in_shares_of_the_largest_expected_value() -> None:
    found = REFERENCE.copy()
    found[0, 0] += 0.03  # 1 % of 3
    assert compare(REFERENCE, found, None, Contract.parse("relative:0.0101")).passed
    near = compare(REFERENCE, found, None, Contract.parse("relative:9e-3"))
    assert not near.passed
    assert near.worst_relative == pytest.approx(0.01, rel=1e-5)
    assert near.why == "83.33% of the outputs keep the contract ≤ 0.009 of the range"
    assert compare(REFERENCE, found, None, Contract.parse("relative:9e-3@80%")).passed


def test_not_a_number_never_passes() -> None:
    found = off_by(0)
    found[1, 1] = np.nan
    fidelity = compare(REFERENCE, found, None, Contract.parse("decisions@1%"))
    assert not fidelity.passed
    assert fidelity.why == "the artifact gave NaN or Inf"
    fidelity = compare(found, found, None, Contract.parse("decisions@1%"))
    assert not fidelity.passed
    assert fidelity.why == "the program itself gave NaN or Inf"


def test_accuracies_are_those_of_artifact_program_and_float() -> None:
    labels = np.array([2, 2])
    fidelity = compare(
        REFERENCE,
        REFERENCE,
        ENCODING,
        Contract("exact"),
        labels=labels,
        float_outputs=REFERENCE[:, ::-1],
    )
    assert (fidelity.accuracy, fidelity.program_accuracy, fidelity.float_accuracy) == (
        0.5,
        0.5,
        0.5,
    )


def test_contracts_read_as_they_are_written() -> None:
    assert str(Contract.parse("lsb:1@99.9%")) == "≤ 1 LSB for 99.9%"
    assert str(Contract.parse("exact")) == "exact"
    for text in ("exact@50%", "lsb", "lsb:x", "near", "lsb:1@0%", "decisions@101%", ""):
        with pytest.raises(InputError):
            Contract.parse(text)


def test_nothing_to_compare() -> None:
    with pytest.raises(InputError, match="no samples"):
        compare(REFERENCE[:0], REFERENCE[:0], ENCODING, Contract("exact"))
    with pytest.raises(InputError, match="the artifact gave"):
        compare(REFERENCE, REFERENCE[:1], ENCODING, Contract("exact"))


def test_sqnr() -> None:
    assert sqnr_db([1.0, 1.0], [1.0, 1.0]) is None
    assert sqnr_db([10.0], [9.0]) == pytest.approx(20.0)
    assert sqnr_db([10.0], [np.nan]) == sqnr_db([0.0], [1.0]) == NO_SIGNAL_DB
