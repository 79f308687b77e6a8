"""Second moments of what a layer reads and should give, and weights of least squared error."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_DAMPINGS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
"""Of the mean second moment; each layer takes the one that suits samples it was not fitted on."""
_AT_ONCE = 1 << 24
"""Numbers in the systems of rows with different zeros that are solved together: 128 MB."""


class Moments:
    """Second moments of columns and wanted rows, by group."""

    def __init__(self) -> None:
        self.count = 0
        self.square: Tensor = torch.zeros(())
        self.cross: Tensor = torch.zeros(())
        self.power: Tensor = torch.zeros(())
        self.sum: Tensor = torch.zeros(())
        self.wanted: Tensor = torch.zeros(())

    @property
    def groups(self) -> int:
        """Parts of a convolution."""
        return len(self.square)

    def add(self, x: Tensor, y: Tensor) -> None:
        """Columns [n, groups, columns, positions] and rows [n, groups, rows, positions]."""
        x, y = x.double(), y.double()
        self.count += x.shape[0] * x.shape[3]
        self.square = self.square + torch.einsum("ngcl,ngdl->gcd", x, x)
        self.cross = self.cross + torch.einsum("ngrl,ngcl->grc", y, x)
        self.power = self.power + y.square().sum((0, 3))
        self.sum = self.sum + x.sum((0, 3))
        self.wanted = self.wanted + y.sum((0, 3))

    def centred(self, *, means: bool) -> tuple[Tensor, Tensor]:
        """Covariances of the columns, and of rows with columns."""
        n = max(self.count, 1)
        if not means:
            return self.square / n, self.cross / n
        mx, my = self.sum / n, self.wanted / n
        return (
            self.square / n - mx[:, :, None] * mx[:, None, :],
            self.cross / n - my[:, :, None] * mx[:, None, :],
        )

    def plus(self, other: Moments) -> Moments:
        """Of the samples of both."""
        found = Moments()
        found.count = self.count + other.count
        for name in ("square", "cross", "power", "sum", "wanted"):
            setattr(found, name, getattr(self, name) + getattr(other, name))
        return found

    def offset(self, weight: Tensor) -> Tensor:
        """The biases that go with weights: [groups, rows]."""
        n = max(self.count, 1)
        return self.wanted / n - torch.einsum("grc,gc->gr", weight, self.sum / n)


@dataclass(frozen=True)
class Fit:
    """A layer's weights and bias of least squared error."""

    weight: Tensor
    """[groups, rows, columns]."""
    bias: Tensor
    """[groups, rows]."""
    square: Tensor
    """Second moments of the columns, with the ridge: [groups, columns, columns]."""
    cross: Tensor
    """Those of rows with columns, with what the ridge pulls towards: [groups, rows, columns]."""
    moments: Moments

    def without(self, stay: Tensor) -> Fit:
        """The same with weights that are zero: each row is fitted over the columns that stay."""
        weight = torch.zeros_like(self.weight)
        for group, (square, cross, kept) in enumerate(
            zip(self.square, self.cross, stay, strict=True)
        ):
            most = int(kept.sum(1).max())
            at_once = max(_AT_ONCE // max(most, 1) ** 2, 1)
            for rows in torch.split(torch.arange(len(kept)), at_once):
                weight[group, rows] = _by_row(square, cross[rows], kept[rows], most)
        return replace(self, weight=weight, bias=self.moments.offset(weight))


def solve(moments: tuple[Moments, Moments], now: Tensor, *, centred: bool) -> Fit:
    """The weights and biases that come nearest to what is wanted.

    Args:
        moments: of samples to fit on, and of samples that choose the ridge.
        now: weights that the ridge pulls towards: [groups, rows, columns].
        centred: there is a bias.
    """
    fit, check = moments
    damping = _DAMPINGS[1]
    if check.count and fit.count:

        def error(damping: float) -> float:
            return _error(_ridge(fit, now, damping, centred=centred).weight, check, fit, centred)

        damping = min(_DAMPINGS, key=error)
    everything = fit.plus(check) if check.count else fit
    return _ridge(everything, now, damping, centred=centred)


def _ridge(moments: Moments, now: Tensor, damping: float, *, centred: bool) -> Fit:
    square, cross = moments.centred(means=centred)
    size = square.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)[:, None, None]
    ridge = damping * size
    eye = torch.eye(square.shape[1], dtype=square.dtype)
    square, cross = square + ridge * eye, cross + ridge * now
    weight: Tensor = torch.linalg.solve(square, cross.transpose(1, 2)).transpose(1, 2)
    return Fit(weight, moments.offset(weight), square, cross, moments)


def _by_row(square: Tensor, cross: Tensor, stay: Tensor, most: int) -> Tensor:
    """Each row over its own columns, of which there are at most so many."""
    # Columns that stay come first; of the others, the equations say x = 0.
    order = torch.argsort(stay.int(), dim=1, descending=True, stable=True)[:, :most]
    kept = stay.gather(1, order)
    own = square[order[:, :, None], order[:, None, :]]
    own = torch.where(kept[:, :, None] & kept[:, None, :], own, torch.eye(most, dtype=own.dtype))
    wanted = torch.where(kept, cross.gather(1, order), 0.0)
    factor = torch.linalg.cholesky(own)
    solved = torch.cholesky_solve(wanted[:, :, None], factor)[:, :, 0]
    return torch.zeros_like(cross).scatter(1, order, solved)


def _error(weight: Tensor, check: Moments, fit: Moments, centred: bool) -> float:
    """Squared error on what was held out, with the bias of what was fitted."""
    offset = fit.offset(weight) if centred else torch.zeros(weight.shape[:2], dtype=weight.dtype)
    m = check.count
    error = (
        check.power
        - 2 * (weight * check.cross).sum(2)
        + torch.einsum("grc,gcd,grd->gr", weight, check.square, weight)
        + 2 * offset * (torch.einsum("grc,gc->gr", weight, check.sum) - check.wanted)
        + m * offset.square()
    )
    return float(error.sum())
