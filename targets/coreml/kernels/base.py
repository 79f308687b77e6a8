"""What an operation of MIL is to the evaluator: a function whose signature is its definition.

Parameters are named and defaulted as in MIL's own definition of the operation. What a parameter's
annotation asks for it gets: ``Tensor`` a tensor, ``int`` or ``Ints`` plain numbers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Any, get_type_hints

import torch
from torch import Tensor

from edgemix.errors import InputError

Ints = Sequence[int]
Bools = Sequence[bool]
Tensors = Sequence[Tensor]


@dataclass(frozen=True)
class Kernel:
    """One operation."""

    name: str
    function: Callable[..., Any]
    takes: Mapping[str, Callable[[Sequence[Any]], Any]]
    """From each parameter to what makes what the function wants of the values that are bound."""
    required: frozenset[str]
    moves: bool
    """Whether it only moves values, or computes with integers. Floats of 16 bits stay what they
    are then; otherwise the function gets them, and computes with them, in 32 bits, and its result
    is rounded once."""


def kernels(*functions: Callable[..., Any], moves: bool = False) -> dict[str, Kernel]:
    """A table of kernels; a function's name, less a trailing underscore, is the operation's."""
    made = [_kernel(function, moves) for function in functions]
    return {kernel.name: kernel for kernel in made}


def _kernel(function: Callable[..., Any], moves: bool) -> Kernel:
    hints = get_type_hints(function)
    parameters = inspect.signature(function).parameters
    takes = {name: _reader(hints[name]) for name in parameters}
    required = frozenset(n for n, p in parameters.items() if p.default is inspect.Parameter.empty)
    return Kernel(function.__name__.rstrip("_"), function, takes, required, moves)


def _reader(hint: Any) -> Callable[[Sequence[Any]], Any]:
    options = [a for a in getattr(hint, "__args__", ()) if a is not type(None)]
    plain = options[0] if isinstance(hint, UnionType) else hint
    return _READERS.get(plain, _as_it_is)


def _as_it_is(values: Sequence[Any]) -> Any:
    if len(values) != 1:
        raise InputError(f"given {len(values)} times")
    return values[0]


def _one(values: Sequence[Any]) -> Any:
    value = _as_it_is(values)
    if isinstance(value, Tensor) and value.numel() != 1:
        raise InputError(f"a tensor of shape {list(value.shape)}, where one number belongs")
    return value.item() if isinstance(value, Tensor) else value


def _many(values: Sequence[Any]) -> list[Any]:
    """Plain numbers of a vector, or of several values that are bound one by one."""
    parts = [v.reshape(-1).tolist() if isinstance(v, Tensor) else [v] for v in values]
    return [number for part in parts for number in part]


_READERS: Mapping[Any, Callable[[Sequence[Any]], Any]] = {
    int: _one, float: _one, bool: _one, Ints: _many, Bools: _many, Tensors: tuple,
}  # fmt: skip


def axis_of(axis: int, rank: int) -> int:
    """An axis counted from the front."""
    return axis + rank if axis < 0 else axis


def along(values: Tensor, axis: int, rank: int) -> Tensor:
    """A vector [n] shaped so that it broadcasts along ``axis`` of a tensor of that rank."""
    if values.ndim != 1:
        return values
    shape = [1] * rank
    shape[axis] = -1
    return values.reshape(shape)


def same_padding(size: int, kernel: int, stride: int, lower: bool) -> tuple[int, int]:
    """Padding before and after, of ``pad_type`` "same" and "same_lower".

    Args:
        size: of the input along the axis.
        kernel: its extent, dilated.
        stride: of the kernel.
        lower: whether an odd element goes before, not after.
    """
    total = max(0, stride * -(-size // stride) - size + kernel - stride)
    small, large = total // 2, total - total // 2
    return (large, small) if lower else (small, large)


def padding(
    pad_type: str, pad: Ints | None, sizes: Ints, kernel: Ints, strides: Ints
) -> list[tuple[int, int]]:
    """What convolutions and pools put before and after each spatial axis.

    Args:
        pad_type: "valid", "custom", "same" or "same_lower".
        pad: of "custom": before and after, axis by axis.
        sizes: of the input's spatial axes.
        kernel: extents, dilated.
        strides: of each axis.
    """
    if pad_type == "custom" and pad is not None:
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(kernel))]
    if pad_type in ("same", "same_lower"):
        each = zip(sizes, kernel, strides, strict=True)
        return [same_padding(n, k, s, pad_type == "same_lower") for n, k, s in each]
    return [(0, 0)] * len(kernel)


def padded(x: Tensor, pads: Sequence[tuple[int, int]], value: float = 0.0) -> Tensor:
    """``x`` with its last axes padded; negative numbers cut off."""
    if not any(p for pair in pads for p in pair):
        return x
    flat = [p for pair in reversed(pads) for p in pair]
    return torch.nn.functional.pad(x, flat, value=value)
