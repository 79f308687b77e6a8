"""Norms. MIL: ``normalization``."""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.targets.coreml.kernels.base import Ints, along, axis_of, kernels


def batch_norm(
    x: Tensor,
    mean: Tensor,
    variance: Tensor,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """X [n, C, *D], the others [C]."""
    return torch.nn.functional.batch_norm(x, mean, variance, gamma, beta, eps=epsilon)


def instance_norm(
    x: Tensor, gamma: Tensor | None = None, beta: Tensor | None = None, epsilon: float = 1e-5
) -> Tensor:
    """X [n, C, *D], each channel of each sample on its own."""
    found = _normalized(x, list(range(2, x.ndim)), epsilon)
    return _affine(
        found,
        None if gamma is None else along(gamma, 1, x.ndim),
        None if beta is None else along(beta, 1, x.ndim),
    )


def layer_norm(
    x: Tensor,
    axes: Ints | None = None,
    gamma: Tensor | None = None,
    beta: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """Over any axes; gamma and beta have the shape of these axes."""
    over = sorted(axis_of(a, x.ndim) for a in (axes if axes is not None else range(x.ndim)))
    shape = [n if i in over else 1 for i, n in enumerate(x.shape)]
    return _affine(
        _normalized(x, over, epsilon),
        None if gamma is None else gamma.reshape(shape),
        None if beta is None else beta.reshape(shape),
    )


def l2_norm(x: Tensor, epsilon: float = 1e-6) -> Tensor:
    """X [*B, D, D, D], over the last three axes."""
    return x / ((x * x).sum((-3, -2, -1), keepdim=True) + epsilon).sqrt()


def local_response_norm(
    x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Tensor:
    """X [n, C, *D], over neighbouring channels."""
    return torch.nn.functional.local_response_norm(x, size, alpha, beta, k)


def _normalized(x: Tensor, axes: list[int], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdim=True)
    return centred / ((centred * centred).mean(axes, keepdim=True) + epsilon).sqrt()


def _affine(x: Tensor, gamma: Tensor | None, beta: Tensor | None) -> Tensor:
    scaled = x if gamma is None else x * gamma
    return scaled if beta is None else scaled + beta


KERNELS = kernels(batch_norm, instance_norm, layer_norm, l2_norm, local_response_norm)
