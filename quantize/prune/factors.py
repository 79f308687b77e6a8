"""One matrix as the product of two thinner ones, nearest for the inputs that it sees.

The error of an approximation V of W is E‖s ∘ (W − V)(x − E x)‖² = tr(S(W − V) C (W − V)ᵗS): C is
the covariance of the inputs, s how much the outputs make of each row. Means are a bias's matter.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_LEAST = 1e-3
"""Of the largest: smaller deviations are not brought to one, and no row counts for less."""


@dataclass(frozen=True)
class Basis:
    """First factors of every rank at once: that of rank r is the first r rows.

    Inner channels have a deviation of one on the inputs that they were made for: one grid of
    integers suits them all, and its rounding costs each of them what it is worth.
    """

    rows: Tensor
    """[ranks, columns], or [ranks, channels] for a second factor that has the kernel."""
    error: Tensor
    """With the first 0, 1, 2 … rows, and the second factor of :func:`second_for`: [ranks + 1]."""


def low_rank(weight: Tensor, covariance: Tensor, sensitivity: Tensor) -> Basis:
    """The best first factors of every rank.

    The singular values after the inputs' root on one side and the outputs' weights on the other
    are what each inner channel is worth (Wang et al., "SVD-LLM", ICLR 2025; Yuan et al., "ASVD",
    2023).

    Args:
        weight: [rows, columns].
        covariance: of the columns, positive definite: [columns, columns].
        sensitivity: what a squared error of each row costs: [rows].
    """
    rows, values = _spectrum(weights_of(sensitivity)[:, None] * weight, covariance)
    return Basis(rows, _left(values.square()))


def by_channel(weight: Tensor, covariance: Tensor, sensitivity: Tensor, channels: int) -> Basis:
    """The same where the first factor mixes channels alone, and the second has the kernel.

    Rows are the best for the channels' mean covariance over the kernel's places; the error counts
    all of the covariance.

    Args:
        weight: [rows, channels · places].
        covariance: [channels · places, channels · places], positive definite.
        sensitivity: [rows].
        channels: how many the input has.
    """
    rows, places = len(weight), weight.shape[1] // channels
    weighed = weights_of(sensitivity)[:, None] * weight.double()
    stacked = weighed.reshape(rows, channels, places).transpose(1, 2).reshape(-1, channels)
    blocks = covariance.double().reshape(channels, places, channels, places)
    basis, _ = _spectrum(stacked, blocks.diagonal(dim1=1, dim2=3).mean(2))
    # Of a triangular root, the first columns span what the first inner channels see.
    root = root_of(covariance)
    triangle, _ = torch.linalg.qr(root.T @ at_each_place(basis, places).T)
    worth = (weighed @ root @ triangle).square().sum(0).reshape(len(basis), places).sum(1)
    total = (weighed @ root).square().sum()
    error = (total - torch.cat([torch.zeros(1, dtype=worth.dtype), worth.cumsum(0)])).clamp(min=0.0)
    return Basis(basis, error)


def second_for(weight: Tensor, covariance: Tensor, first: Tensor) -> Tensor:
    """The second factor of least error behind a first one, whatever rows weigh.

    Args:
        weight: [rows, columns].
        covariance: [columns, columns].
        first: [inner, columns].
    """
    seen = first.double() @ covariance.double()
    solved: Tensor = torch.linalg.lstsq(seen @ first.double().T, seen @ weight.double().T).solution
    return solved.T


def at_each_place(basis: Tensor, places: int) -> Tensor:
    """What mixes channels [inner, channels] as a matrix of a kernel's columns."""
    return torch.kron(basis, torch.eye(places, dtype=basis.dtype))


def root_of(covariance: Tensor) -> Tensor:
    """R with R Rᵗ = C."""
    values, vectors = torch.linalg.eigh(covariance.double())
    root: Tensor = vectors * values.clamp(min=0.0).sqrt()
    return root


def weights_of(sensitivity: Tensor) -> Tensor:
    """Roots of what rows cost, none of them zero: samples are few, a row may matter to another."""
    root = sensitivity.double().sqrt()
    largest = float(root.max())
    return root.clamp(min=_LEAST * largest) if largest else torch.ones_like(root)


def _spectrum(weighed: Tensor, covariance: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of deviation one, the one that is worth most in front, and their singular values."""
    left, values, _ = torch.linalg.svd(weighed.double() @ root_of(covariance), full_matrices=False)
    deviation = values.clamp(min=max(_LEAST * float(values[0]), 1e-30))
    return (left.T @ weighed.double()) / deviation[:, None], values


def _left(parts: Tensor) -> Tensor:
    """What remains of a sum after its first 0, 1, 2 … parts."""
    behind = parts.flip(0).cumsum(0).flip(0)
    return torch.cat([behind, torch.zeros(1, dtype=parts.dtype)])
