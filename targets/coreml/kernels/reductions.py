"""Reductions, running sums and orders. MIL: ``reduction``, parts of ``tensor_operation``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from edgemix.targets.coreml.kernels.base import Ints, kernels


def reduce_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return x.sum(_axes(x, axes), keepdim=keep_dims)


def reduce_mean(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _real(x).mean(_axes(x, axes), keepdim=keep_dims)


def reduce_max(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return x.amax(_axes(x, axes), keepdim=keep_dims)


def reduce_min(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return x.amin(_axes(x, axes), keepdim=keep_dims)


def reduce_prod(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    found = x
    for axis in sorted(_axes(x, axes), reverse=True):
        found = found.prod(axis, keepdim=keep_dims)
    return found


def reduce_l1_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return reduce_sum(x.abs(), axes, keep_dims)


def reduce_l2_norm(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _real(reduce_sum_square(x, axes, keep_dims)).sqrt()


def reduce_sum_square(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return reduce_sum(x * x, axes, keep_dims)


def reduce_log_sum(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _real(reduce_sum(x, axes, keep_dims)).log()


def reduce_log_sum_exp(x: Tensor, axes: Ints | None = None, keep_dims: bool = False) -> Tensor:
    return _real(x).logsumexp(_axes(x, axes), keepdim=keep_dims)


def reduce_argmax(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    return x.argmax(axis, keepdim=keep_dims)


def reduce_argmin(
    x: Tensor, axis: int = -1, keep_dims: bool = False, output_dtype: str = "int32"
) -> Tensor:
    return x.argmin(axis, keepdim=keep_dims)


def cumsum(x: Tensor, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Tensor:
    turned = x.flip(axis) if reverse else x
    if exclusive:
        # Not the sum less the element: that is nothing where an infinity was added.
        rest = turned.narrow(axis, 0, x.shape[axis] - 1)
        turned = torch.cat([torch.zeros_like(turned.narrow(axis, 0, 1)), rest], axis)
    found = turned.cumsum(axis)
    return found.flip(axis) if reverse else found


def argsort(x: Tensor, axis: int = -1, ascending: bool = False) -> Tensor:
    return x.argsort(dim=axis, descending=not ascending, stable=True)


def topk(
    x: Tensor,
    k: int = 1,
    axis: int = -1,
    ascending: bool = False,
    sort: bool = True,
    return_indices: bool = True,
    output_indices_dtype: str = "int32",
) -> tuple[Tensor, ...]:
    """Sorted whether asked or not; of equal values the first come first."""
    count = x.shape[axis] if k == -1 else k
    values, places = x.sort(dim=axis, descending=not ascending, stable=True)
    first = (values.narrow(axis, 0, count), places.narrow(axis, 0, count))
    return first if return_indices else first[:1]


def classify(probabilities: Tensor, classes: Any) -> tuple[Any, dict[Any, float]]:
    """The label of the largest probability, and the probability of each label."""
    shares = probabilities.reshape(-1).tolist()
    labels = [c.item() if isinstance(c, Tensor) else c for c in classes]
    likeliest = max(range(len(shares)), key=shares.__getitem__)
    return labels[likeliest], dict(zip(labels, shares, strict=True))


def _axes(x: Tensor, axes: Ints | None) -> list[int]:
    return sorted(a % x.ndim for a in axes) if axes is not None else list(range(x.ndim))


def _real(x: Tensor) -> Tensor:
    """Integers in a type that holds them; the result is cut off to an integer again."""
    return x if x.is_floating_point() else x.double()


KERNELS = {
    **kernels(
        reduce_sum, reduce_mean, reduce_prod, reduce_l1_norm, reduce_l2_norm, reduce_sum_square,
        reduce_log_sum, reduce_log_sum_exp, cumsum,
    ),
    **kernels(
        reduce_max, reduce_min, reduce_argmax, reduce_argmin, argsort, topk, classify, moves=True
    ),
}  # fmt: skip
