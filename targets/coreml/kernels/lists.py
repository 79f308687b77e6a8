"""Lists of tensors of one shape; every operation gives a new list. MIL: ``control_flow``."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgemix.errors import InputError
from edgemix.targets.coreml.kernels.base import Ints, kernels

LONGEST = 2**20


@dataclass(frozen=True)
class TensorList:
    """A list; None where nothing was written yet, which reads as zeros."""

    items: tuple[Tensor | None, ...]
    grows: bool
    shape: tuple[int, ...] | None
    """Of its elements; None: known only from the first that is written."""


def make_list(
    init_length: int = 1,
    dynamic_length: bool = True,
    elem_shape: Ints | None = None,
    dtype: str = "fp32",
) -> TensorList:
    shape = None if elem_shape is None else tuple(elem_shape)
    if shape is not None and not all(isinstance(n, int) for n in shape):
        shape = None  # A size that is known only when the model runs has a name.
    return TensorList((None,) * _short(init_length), dynamic_length, shape)


def list_length(ls: TensorList) -> Tensor:
    return torch.tensor(len(ls.items))


def list_read(ls: TensorList, index: int) -> Tensor:
    if not 0 <= index < len(ls.items):
        raise InputError(f"place {index} lies outside a list of {len(ls.items)}")
    found = ls.items[index]
    if found is not None:
        return found
    written = next((item for item in ls.items if item is not None), None)
    if written is not None:
        return torch.zeros_like(written)
    if ls.shape is None:
        raise InputError(f"nothing was written to a list of {len(ls.items)}, and it has no shape")
    return torch.zeros(ls.shape)


def list_write(ls: TensorList, index: int, value: Tensor) -> TensorList:
    items = list(ls.items)
    if index < 0:
        raise InputError(f"place {index} lies before a list of {len(items)}")
    if index >= len(items):
        if not ls.grows:
            raise InputError(f"place {index} lies behind a list of {len(items)} that cannot grow")
        items += [None] * (_short(index + 1) - len(items))
    items[index] = value
    return replace(ls, items=tuple(items))


def list_gather(ls: TensorList, indices: Ints) -> Tensor:
    return torch.stack([list_read(ls, i) for i in indices])


def list_scatter(ls: TensorList, indices: Ints, value: Tensor) -> TensorList:
    for place, item in zip(indices, value, strict=True):
        ls = list_write(ls, place, item)
    return ls


def _short(length: int) -> int:
    if not 0 <= length <= LONGEST:
        raise InputError(f"a list of {length} tensors")
    return length


KERNELS = kernels(
    make_list, list_length, list_read, list_write, list_gather, list_scatter, moves=True
)
