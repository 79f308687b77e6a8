"""Operators that coreai-torch refuses, or gets wrong, in terms of those that it gets right.

Tried with coreai-torch 0.4.3 on two hundred calls of single operators against torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch._decomp import get_decompositions

from edgemix.extras import need
from edgemix.graph import aten
from edgemix.targets.decompositions import Table, by_torch, common

_BY_TORCH = (
    aten.adaptive_max_pool2d.default,
    aten.elu.default,
    aten.grid_sampler_2d.default,
)


def table() -> Table:
    """What ``run_decompositions`` is given."""
    found: Table = need("coreai_torch", extra="coreai").get_decomp_table()
    found.update(by_torch(_BY_TORCH))
    found.update(common())
    found[aten.as_strided.default] = _as_strided
    found[aten.upsample_nearest2d.vec] = _nearest
    found[aten.max_pool2d.default] = _largest
    found[aten.argmin.default] = lambda x, *a, **k: (-x).argmax(*a, **k)
    found[aten.remainder.Scalar] = lambda x, y: x - y * (x / y).floor()
    return found


def _as_strided(x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int = 0) -> Any:
    """A view that moves nothing: what pooling to one pixel makes of a channels-last image."""
    if offset == 0 and _long_axes(size, stride) == _long_axes(x.shape, x.stride()):
        return x.reshape(size)
    return NotImplemented


def _long_axes(size: Sequence[int], stride: Sequence[int]) -> list[tuple[int, int]]:
    return [(n, s) for n, s in zip(size, stride, strict=True) if n != 1]


def _largest(x: Tensor, *options: Any) -> Any:
    found = common()[aten.max_pool2d.default](x, *options)
    return aten.max_pool2d_with_indices(x, *options)[0] if found is NotImplemented else found


def _nearest(x: Tensor, size: Sequence[int] | None, factors: Sequence[float] | None) -> Any:
    """Core AI measures from the middles of pixels, torch from their edges."""
    edges = x.shape[-2:]
    sizes = size or [int(n * f) for n, f in zip(edges, factors or (), strict=True)]
    if all(many % few == 0 for many, few in zip(sizes, edges, strict=True)):
        return NotImplemented
    operator = aten.upsample_nearest2d.vec
    return get_decompositions([operator])[operator](x, size, factors)
