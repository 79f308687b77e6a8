"""One matrix as a small dense one times a sparse one with equally many nonzeros in each column.

Chand et al., "DSFormer: Effective Compression of Text-Transformers by Dense-Sparse Weight
Factorization", 2023; here after training, and nearest for the inputs that are seen. The sparse
factor is the larger one: each column of the matrix, or each row where there are more of them, is
made of a few inner channels of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgemix.quantize.prune.factors import root_of, second_for, weights_of

_SWEEPS = 30
_TINY = 1e-9
"""Of a dictionary's size, added to its products: two of its vectors may be alike."""


def dense_sparse(
    weight: Tensor, covariance: Tensor, sensitivity: Tensor, inner: int, each: int
) -> tuple[Tensor, Tensor]:
    """Two factors, [inner, columns] and [rows, inner], the larger of which is sparse.

    Args:
        weight: [rows, columns].
        covariance: of the columns, positive definite: [columns, columns].
        sensitivity: what a squared error of each row costs: [rows].
        inner: inner channels.
        each: nonzeros of each column of the first factor, or of each row of the second.
    """
    weight, weights = weight.double(), weights_of(sensitivity)
    if weight.shape[0] <= weight.shape[1]:
        first = _sparse(weights[:, None] * weight, covariance.double(), inner, each)
        second = second_for(weight, covariance, first)
    else:
        read = root_of(covariance).T @ weight.T
        second = _sparse(read, torch.diag(weights.square()), inner, each).T
        first = second_for(weight.T, torch.diag(weights.square()), second.T).T
    variance = ((first @ covariance.double()) * first).sum(1)
    size = torch.where(variance > 0, variance, 1.0).sqrt()
    return first / size[:, None], second * size


def _sparse(target: Tensor, coupling: Tensor, inner: int, each: int) -> Tensor:
    """The sparse factor S [inner, n] of least tr((T − D S) G (T − D S)ᵗ), by turns with D.

    Columns that are coupled are found one by one all the same, as those of a bound of the error
    that touches it at the present factors (Hunter & Lange, "A tutorial on MM algorithms", 2004).

    Args:
        target: T, [m, n].
        coupling: G, [n, n].
        inner: columns of D, at most m.
        each: nonzeros of each column of S.
    """
    bound = coupling.abs().sum(1).clamp(min=1e-30)
    dense = torch.linalg.svd(target @ root_of(coupling), full_matrices=False).U[:, :inner]
    sparse = codes(dense, target, each)
    for _ in range(_SWEEPS):
        dense = second_for(target, coupling, sparse)
        nearby = dense @ sparse + ((target - dense @ sparse) @ coupling) / bound
        found = codes(dense, nearby, each)
        misses = [(nearby - dense @ some).square().sum(0) for some in (found, sparse)]
        sparse = torch.where(misses[0] < misses[1], found, sparse)  # a pursuit may end up worse
    return sparse


def codes(dense: Tensor, target: Tensor, each: int) -> Tensor:
    """Orthogonal matching pursuit, for all columns at once (Pati et al., Asilomar 1993).

    Args:
        dense: the dictionary, [m, inner].
        target: [m, n].
        each: how many vectors of the dictionary a column takes.

    Returns:
        [inner, n].
    """
    products, wanted = dense.T @ dense, dense.T @ target
    products = products + _TINY * products.diagonal().mean() * torch.eye(len(products)).double()
    size = products.diagonal().sqrt()[:, None]
    taken = torch.zeros(target.shape[1], 0, dtype=torch.int64)
    found = torch.zeros_like(wanted)
    for _ in range(each):
        likeness = ((wanted - products @ found) / size).abs().scatter(0, taken.T, -1.0)
        taken = torch.cat([taken, likeness.argmax(0)[:, None]], 1)
        own = products[taken[:, :, None], taken[:, None, :]]
        values = torch.linalg.solve(own, wanted.T.gather(1, taken))
        found = torch.zeros_like(wanted).scatter(0, taken.T, values.T)
    return found
