"""Rounding and saturation, held against torch's reference operators and exact rationals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgemix.encoding import Encoding, FixedPoint
from edgemix.errors import InputError
from edgemix.graph import aten  # noqa: F401  (defines quantized_decomposed)

finite = st.floats(-1e4, 1e4, width=32)
scales = st.floats(1e-4, 1e2)
exponents = st.integers(-12, 6)


@given(st.lists(finite, min_size=1, max_size=40), scales, st.integers(-128, 127))
def test_integers_are_those_of_torchs_reference(
    values: list[float], scale: float, zero: int
) -> None:
    x = torch.tensor(values)
    encoding = Encoding.per_tensor(scale, zero)
    reference = torch.ops.quantized_decomposed.quantize_per_tensor(
        x, encoding.scale[0], zero, -128, 127, torch.int8
    )
    assert torch.equal(encoding.quantize(x), reference)
    back = torch.ops.quantized_decomposed.dequantize_per_tensor(
        reference, encoding.scale[0], zero, -128, 127, torch.int8
    )
    assert torch.equal(encoding.dequantize(reference), back)


@given(st.integers(-(10**6), 10**6), exponents)
def test_power_of_two_scales_round_exact_rationals_half_to_even(numerator: int, k: int) -> None:
    x = Fraction(numerator, 2**10)
    exact = max(-128, min(127, round(x / Fraction(2) ** k)))  # round() of a Fraction is half-even
    assert Encoding.per_tensor(2.0**k).quantize(torch.tensor([float(x)])).item() == exact


def test_ties_go_to_even_and_the_ends_saturate() -> None:
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5, 1e9, -1e9, -0.0])
    assert Encoding.per_tensor(1.0).quantize(x).tolist() == [0, 2, 2, 0, -2, 126, 127, 127, -128, 0]


def test_every_integer_survives_the_round_trip() -> None:
    for encoding in (Encoding.per_tensor(0.03, 5), Encoding.per_tensor(2**-7, -128)):
        q = torch.arange(-128, 128, dtype=torch.int8)
        assert torch.equal(encoding.quantize(encoding.dequantize(q)), q)
        assert np.array_equal(encoding.integers(encoding.dequantize(q).numpy()), q.numpy())


def test_per_channel_scales_follow_their_axis_also_on_odd_strides() -> None:
    encoding = Encoding((1.0, 2.0, 4.0), (0, 0, 0), axis=1)
    x = torch.full((2, 3, 5), 8.0).transpose(0, 2).contiguous().transpose(0, 2)
    assert not x.is_contiguous()
    assert encoding.quantize(x)[0, :, 0].tolist() == [8, 4, 2]
    assert encoding.quantize(torch.zeros(0, 3, 5)).shape == (0, 3, 5)


@pytest.mark.parametrize(
    ("encoding", "fixed"),
    [
        (Encoding.per_tensor(2**-7), FixedPoint(8, 1, True)),
        (Encoding.per_tensor(0.5), FixedPoint(8, 7, True)),
        (Encoding.per_tensor(2**-8, -128), FixedPoint(8, 0, False)),
        (Encoding.per_tensor(4.0, -128), FixedPoint(8, 10, False)),
        (Encoding.per_tensor(0.3), None),
        (Encoding.per_tensor(0.5, 3), None),
        (Encoding.per_tensor(0.5, qmin=-127), None),
        (Encoding((0.5, 0.5), (0, 0), axis=0), None),
    ],
)
def test_fixed_point_types(encoding: Encoding, fixed: FixedPoint | None) -> None:
    assert encoding.fixed_point() == fixed


@pytest.mark.parametrize("scale", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_must_be_positive_and_finite(scale: float) -> None:
    with pytest.raises(InputError, match="must be positive and finite"):
        Encoding.per_tensor(scale)


def test_a_zero_point_must_be_representable() -> None:
    with pytest.raises(InputError, match="must lie within its integers"):
        Encoding.per_tensor(1.0, 200)
