"""Operators that coreai-torch refuses, or gets wrong, in terms of those that it gets right.

Tried with coreai-torch 0.4.3 on two hundred calls of single operators against torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch._decomp import get_decompositions

from edgemix.extras import need
from edgemix.graph import aten

_BY_TORCH = (
    aten.adaptive_max_pool2d.default,
    aten.elu.default,
)


def table() -> dict[Any, Callable[..., Any]]:
    """What ``run_decompositions`` is given."""
    found: dict[Any, Callable[..., Any]] = need("coreai_torch", extra="coreai").get_decomp_table()
    found.update(get_decompositions(_BY_TORCH))
    found[aten.as_strided.default] = _as_strided
    found[aten.var.correction] = _variance
    found[aten.upsample_nearest2d.vec] = _nearest
    # The converter overlooks alpha.
    found[aten.add.Tensor] = _scaled(aten.add.Tensor)
    found[aten.sub.Tensor] = _scaled(aten.sub.Tensor)
    return found


def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int = 0) -> Any:
    """A view that moves nothing: what pooling to one pixel makes of a channels-last image."""
    if offset == 0 and _long_axes(size, stride) == _long_axes(x.shape, x.stride()):
        return x.reshape(size)
    return NotImplemented


def _long_axes(size: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    return [(n, s) for n, s in zip(size, stride, strict=True) if n != 1]


def _variance(
    x: Tensor, dim: Sequence[int] | None = None, *, correction: float = 1, keepdim: bool = False
) -> Tensor:
    axes = list(dim) if dim else list(range(x.ndim))
    count = math.prod(x.shape[axis] for axis in axes)
    centred = x - x.mean(axes, keepdim=True)
    return (centred * centred).sum(axes, keepdim=keepdim) / (count - correction)


def _nearest(x: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
    """Core AI measures from the middles of pixels, torch from their edges."""
    edges = x.shape[-2:]
    sizes = size or [int(n * f) for n, f in zip(edges, factors or (), strict=True)]
    if all(many % few == 0 for many, few in zip(sizes, edges, strict=True)):
        return NotImplemented
    operator = aten.upsample_nearest2d.vec
    return get_decompositions([operator])[operator](x, size, factors)


def _scaled(operator: Callable[..., Any]) -> Callable[..., Any]:
    def sum_of(x: Tensor, y: Any, *, alpha: float = 1) -> Any:
        return NotImplemented if alpha == 1 else operator(x, y * alpha)

    return sum_of
