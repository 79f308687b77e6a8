"""Second moments of what a layer reads and should give, and weights of least squared error."""

from __future__ import annotations

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


def solve(
    moments: tuple[Moments, Moments], now: Tensor, *, centred: bool, stay: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Weights [groups, rows, columns] and biases [groups, rows] of least squared error.

    Args:
        moments: of samples to fit on, and of samples that choose the ridge.
        now: the weights that the ridge pulls towards.
        centred: there is a bias.
        stay: which weights are not zero; None: any.
    """
    fit, check = moments
    damping = _DAMPINGS[1]
    if check.count and fit.count:

        def error(damping: float) -> float:
            weight = _ridge(fit, now, damping, centred=centred, stay=stay)
            return _error(weight, fit, check, centred=centred)

        damping = min(_DAMPINGS, key=error)
    everything = fit.plus(check) if check.count else fit
    weight = _ridge(everything, now, damping, centred=centred, stay=stay)
    return weight, everything.offset(weight)


def _ridge(
    moments: Moments, now: Tensor, damping: float, *, centred: bool, stay: Tensor | None
) -> Tensor:
    square, cross = moments.centred(means=centred)
    size = square.diagonal(dim1=1, dim2=2).mean(1).clamp(min=1e-12)[:, None, None]
    ridge = damping * size
    eye = torch.eye(square.shape[1], dtype=square.dtype)
    square, wanted = square + ridge * eye, cross + ridge * now
    if stay is None or bool(stay.all()):
        weight: Tensor = torch.linalg.solve(square, wanted.transpose(1, 2))
        return weight.transpose(1, 2)
    rows = max(_AT_ONCE // eye.numel(), 1)
    parts = zip(torch.split(wanted, rows, 1), torch.split(stay, rows, 1), strict=True)
    return torch.cat([_by_row(square, *part) for part in parts], 1)


def _by_row(square: Tensor, wanted: Tensor, stay: Tensor) -> Tensor:
    """Each row over its own columns; the system of those that are gone is x = 0."""
    both = stay[:, :, :, None] & stay[:, :, None, :]
    eye = torch.eye(square.shape[1], dtype=square.dtype)
    own = torch.where(both, square[:, None], eye)
    solved: Tensor = torch.linalg.solve(own, torch.where(stay, wanted, 0.0))
    return torch.where(stay, solved, 0.0)


def _error(weight: Tensor, fit: Moments, check: Moments, *, centred: bool) -> float:
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
