"""How real numbers become integers: the only rounding and saturation in the house.

    q = clamp(round_half_even(x / scale) + zero_point, qmin, qmax)
    x̂ = (q - zero_point) · scale

The arithmetic is that of ``torch.ops.quantized_decomposed`` and of ONNX's QuantizeLinear, with
ties to even. An encoding whose scales are powers of two and whose zero point is 0 or ``qmin`` is
also an ``ap_fixed`` or ``ap_ufixed`` type, see :meth:`Encoding.fixed_point`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgemix.errors import InputError

DTYPES: dict[str, torch.dtype] = {
    "int8": torch.int8,
    "uint8": torch.uint8,
    "int16": torch.int16,
    "int32": torch.int32,
}


@dataclass(frozen=True)
class FixedPoint:
    """``ap_fixed<width, integer>`` or, unsigned, ``ap_ufixed<width, integer>``.

    ``width`` counts all bits, ``integer`` those left of the binary point, sign included.
    """

    width: int
    integer: int
    signed: bool

    @property
    def fraction(self) -> int:
        """Bits right of the binary point: the least significant bit is 2**-fraction."""
        return self.width - self.integer


@dataclass(frozen=True)
class Encoding:
    """Scale, zero point and integer range of a tensor."""

    scale: tuple[float, ...]
    """One value, or one per index of ``axis``; each is a float32 number."""
    zero_point: tuple[int, ...]
    """As many as scales."""
    qmin: int = -128
    qmax: int = 127
    dtype: str = "int8"
    axis: int | None = None
    """The axis of the scales, or None for one scale for all."""
    group: int | None = None
    """Of a matrix with axis 0: columns that share a scale. Scales are listed row by row."""

    def __post_init__(self) -> None:
        if len(self.scale) != len(self.zero_point) or not self.scale:
            raise InputError("an encoding needs as many zero points as scales, at least one")
        if any(not (s > 0 and math.isfinite(s)) for s in self.scale):
            raise InputError(f"an encoding's scale must be positive and finite: {min(self.scale)}")
        if any(not self.qmin <= z <= self.qmax for z in self.zero_point):
            raise InputError("an encoding's zero point must lie within its integers")

    @classmethod
    def per_tensor(cls, scale: float, zero_point: int = 0, **more: object) -> Encoding:
        """One scale for all values; it is rounded to float32, as every runtime stores it."""
        return cls((float(np.float32(scale)),), (zero_point,), **more)  # type: ignore[arg-type]

    @property
    def bits(self) -> int:
        """Width of the integers."""
        return (self.qmax - self.qmin).bit_length()

    @property
    def lsb(self) -> float:
        """Size of one step of a per-tensor encoding."""
        if len(self.scale) != 1:
            raise InputError("a per-channel encoding has no single step")
        return self.scale[0]

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value of a per-tensor encoding."""
        zero = self.zero_point[0]
        return (self.qmin - zero) * self.lsb, (self.qmax - zero) * self.lsb

    def fixed_point(self) -> FixedPoint | None:
        """The same values as an ``ap_(u)fixed`` type, or None where there is none."""
        mantissa, exponent = math.frexp(self.scale[0])
        full = self.qmax - self.qmin + 1 == 1 << self.bits
        if len(self.scale) != 1 or mantissa != 0.5 or not full:
            return None
        signed = self.zero_point[0] == 0 and self.qmin == -(1 << (self.bits - 1))
        unsigned = self.zero_point[0] == self.qmin
        if not signed and not unsigned:
            return None
        return FixedPoint(self.bits, self.bits + exponent - 1, signed)

    def quantize(self, x: Tensor) -> Tensor:
        """Integers of ``x`` in :attr:`dtype`: ties go to even, values out of range saturate."""
        scale, zero_point = self._shaped(x)
        # The reciprocal, not a division: what torch's reference operator does.
        q = torch.clamp(torch.round(x * (1.0 / scale)) + zero_point, self.qmin, self.qmax)
        return q.to(DTYPES[self.dtype])

    def dequantize(self, q: Tensor) -> Tensor:
        """The real numbers that integers stand for (float32)."""
        scale, zero_point = self._shaped(q)
        return (q.to(torch.float32) - zero_point) * scale

    def steps(self, x: Tensor) -> Tensor:
        """The step of every value of ``x``, in its shape."""
        return self._shaped(x)[0].expand(x.shape)

    def integers(self, x: npt.NDArray[np.floating]) -> npt.NDArray[np.int64]:
        """Integers of an array that already lies on this encoding's grid, or nearest to it."""
        scale = np.float64(self.lsb)
        q = np.rint(np.asarray(x, np.float64) / scale) + self.zero_point[0]
        limited: npt.NDArray[np.int64] = np.clip(q, self.qmin, self.qmax).astype(np.int64)
        return limited

    def _shaped(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = torch.tensor(self.scale, dtype=torch.float32)
        zero_point = torch.tensor(self.zero_point, dtype=torch.float32)
        if self.axis is None:
            return scale.reshape(()), zero_point.reshape(())
        if self.group is not None:
            rows = x.shape[0]
            each = (
                t.reshape(rows, -1).repeat_interleave(self.group, 1) for t in (scale, zero_point)
            )
            return tuple(each)  # type: ignore[return-value]
        shape = [1] * x.ndim
        shape[self.axis] = -1
        return scale.reshape(shape), zero_point.reshape(shape)
