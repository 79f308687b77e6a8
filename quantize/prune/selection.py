"""Choosing rows by their values in static shapes: comparisons, sums and products alone.

Sorting, gathering and scattering by computed indices lower to few targets. How many values stand
above another is its place in descending order, and a comparison of places with numbers is a matrix
of zeros and ones whose product with rows moves them, exactly. Of equal values the first comes
first, so that each place is taken once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

_HALF = 0.5
"""Between two whole numbers: what is compared may be a little off them."""
_FAR = 4.0
"""Farther apart than any two cosines."""


class Order(nn.Module):
    """Who comes before whom in descending order: [n, count] → [n, count, count].

    One in row i and column j where value j comes before value i; a row's sum is its place.
    """

    earlier: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("earlier", torch.ones(count, count).tril(-1), persistent=False)

    def forward(self, values: Tensor) -> Tensor:  # noqa: D102
        own, others = values.unsqueeze(2), values.unsqueeze(1)
        above, level = (others > own).float(), (others >= own).float()
        return above + (level - above) * self.earlier


class First(nn.Module):
    """Which are the first in an order: [n, count, count] → zeros and ones [n, count]."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.last = most - _HALF

    def forward(self, order: Tensor) -> Tensor:  # noqa: D102
        return (order.sum(-1) < self.last).float()


class Pick(nn.Module):
    """The matrix that moves the first in an order to its rows: → [n, picked, count]."""

    low: Tensor
    high: Tensor

    def __init__(self, picked: int, start: int = 0, step: int = 1) -> None:
        super().__init__()
        places = start + step * torch.arange(picked).reshape(1, picked, 1).float()
        self.register_buffer("low", places - _HALF, persistent=False)
        self.register_buffer("high", places + _HALF, persistent=False)

    def forward(self, order: Tensor) -> Tensor:  # noqa: D102
        places = order.sum(-1).unsqueeze(1)
        return (places > self.low).float() * (places < self.high).float()


class Highest(nn.Module):
    """One at the first of each row's highest values: [n, rows, count] → [n, rows, count]."""

    left: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("left", torch.arange(count, 0, -1).float(), persistent=False)

    def forward(self, values: Tensor) -> Tensor:  # noqa: D102
        highest = (values >= values.amax(-1, keepdim=True)).float()
        left = highest * self.left  # the first has most to its right
        return (left + _HALF > left.amax(-1, keepdim=True)).float()


class Close(nn.Module):
    """Drop some rows: the last that stay move into the gaps of the others, whose place they keep.

    Costs (count − gone) · gone products a column, where moving every row costs count times as many
    as stay.
    """

    before_gap: Tensor
    before_last: Tensor

    def __init__(self, count: int, gone: int) -> None:
        super().__init__()
        self.stay = count - gone
        for name, size in (("before_gap", self.stay), ("before_last", gone)):
            self.register_buffer(name, torch.ones(size, size).tril(), persistent=False)

    def macs(self, columns: int) -> int:
        """Multiply-accumulates for rows of so many columns."""
        stay, gone = self.stay, len(self.before_last)
        return stay**2 + gone**2 + stay * gone * columns

    def matrix(self, gone: Tensor) -> tuple[Tensor, Tensor]:
        """From zeros and ones [n, count] what :meth:`move` takes."""
        gaps, last = gone[:, : self.stay], 1.0 - gone[:, self.stay :]
        numbers = nn.functional.linear(gaps, self.before_gap) * gaps  # from 1; 0 is no gap
        lasts = nn.functional.linear(last, self.before_last) * last - (1.0 - last)
        lasts, numbers = lasts.unsqueeze(1), numbers.unsqueeze(2)
        moves = (numbers + _HALF > lasts).float() * (numbers - _HALF < lasts).float()
        return (1.0 - gaps).unsqueeze(2), moves

    def move(self, rows: Tensor, matrix: tuple[Tensor, Tensor]) -> Tensor:
        """The rows that stay: [n, count, columns] → [n, count − gone, columns]."""
        stays, moves = matrix
        return rows[:, : self.stay] * stays + moves @ rows[:, self.stay :]


def only(values: Tensor, marked: Tensor) -> Tensor:
    """Cosines, of which those that are not marked by ones lie below all others."""
    return values + (marked - 1.0) * _FAR
