"""How many tokens go at each place, for a budget."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.diagnosis import macs
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.prune.axes import shape
from edgemix.quantize.prune.choices import TokenMethod
from edgemix.quantize.prune.matching import KINDS
from edgemix.quantize.prune.rules import arguments
from edgemix.quantize.prune.shorten import copied, counts_of, shorten
from edgemix.quantize.prune.stream import Place, Stream

_STEPS = 16
"""Tokens go in steps of one so many-th of them."""
_AT_ONCE = 32


class Study:
    """What schedules cost and save."""

    def __init__(
        self,
        program: Program,
        stream: Stream,
        method: TokenMethod,
        proportional: bool,
        samples: Tensor,
    ) -> None:
        self.stream, self.method, self.proportional = stream, method, proportional
        self.base, _, self.mapped = batched(program)
        self.pieces = torch.split(samples, _AT_ONCE)
        self.whole = [self._outputs(self.base, x) for x in self.pieces]
        self.scale = sum(float(y.double().square().sum()) for y in self.whole)
        self._costs: dict[tuple[int, int, Place], int] = {}
        self._terms = list(_terms(program.shared, stream))

    def choose(
        self, budget: float, on_step: Callable[[float], None]
    ) -> tuple[tuple[int, ...], str, float]:
        """How many tokens go at each place, by which schedule, at which squared error.

        Raises:
            InputError: all that may go does not suffice; the message says how far it goes.
        """
        whole = self.macs((0,) * len(self.stream.places))
        free = self._rest((0,) * self._open)
        limit = budget * whole
        if self.macs(free) <= limit:
            return free, "constant", self.error(free)
        constant = self._constant()
        floor = min(map(self.macs, [free, *constant]))
        gone = self._greedy(limit, on_step)
        found = [] if gone is None else [(self.error(gone), "greedy", gone)]
        within = [gone for gone in constant if self.macs(gone) <= limit]
        found += [(self.error(gone), "constant", gone) for gone in within[:1]]
        if not found:
            raise InputError(
                f"the budget cannot be met: {floor / whole:.1%} is the least that reducing tokens "
                f"by {self.method} leaves",
                do="ask for less, or prune channels too",
            )
        error, name, gone = min(found)
        return gone, name, error

    @property
    def _open(self) -> int:
        """Places at which it is to be chosen how many go."""
        return len(self.stream.places) - bool(self.stream.narrowed)

    def _rest(self, gone: tuple[int, ...]) -> tuple[int, ...]:
        """With all that nobody asks for gone at the last place."""
        last = self.stream.count - sum(gone) - self.stream.kept
        return (*gone, last) if self.stream.narrowed else gone

    def _most(self, gone: Sequence[int]) -> int:
        """How many can go behind these."""
        return KINDS[self.method].most(self.stream.count - sum(gone) - self.stream.kept)

    def _fitted(self, gone: Sequence[int]) -> tuple[int, ...]:
        """The same as far as there are so many."""
        found: tuple[int, ...] = ()
        for some in gone:
            found = (*found, min(some, self._most(found)))
        return found

    def _constant(self) -> list[tuple[int, ...]]:
        """As many everywhere as there are: one, two and so on."""
        whole = range(1, self._most(()) + 1)
        return [self._rest(self._fitted((some,) * self._open)) for some in whole]

    def _greedy(self, limit: float, on_step: Callable[[float], None]) -> tuple[int, ...] | None:
        """Always where a multiply-accumulate less costs least."""
        gone = (0,) * self._open
        start = self.macs(self._rest(gone))
        step = max(self.stream.count // _STEPS, 1)
        error = self.error(self._rest(gone))
        while (now := self.macs(self._rest(gone))) > limit:
            on_step((start - now) / (start - limit))
            best: tuple[float, tuple[int, ...], float] | None = None
            for i in range(len(gone)):
                taken = self._more(gone, i, step, limit)
                if taken is None:
                    continue
                found = self.error(self._rest(taken))
                price = (found - error) / (now - self.macs(self._rest(taken)))
                if best is None or price < best[0]:
                    best = price, taken, found
            if best is None:
                return None
            _, gone, error = best
        return self._rest(gone)

    def _more(
        self, gone: tuple[int, ...], place: int, step: int, limit: float
    ) -> tuple[int, ...] | None:
        """A step more at one place, or less than that where less suffices."""
        now = self.macs(self._rest(gone))
        for count in (*range(1, step), step, 2 * step):
            taken = self._fitted((*gone[:place], gone[place] + count, *gone[place + 1 :]))
            if taken[place] < gone[place] + count:
                return None
            left = self.macs(self._rest(taken))
            if left <= limit or (count >= step and left < now):
                return taken
        return None

    def macs(self, gone: tuple[int, ...]) -> int:
        """Multiply-accumulates with so many tokens gone."""
        counts = counts_of(self.stream, gone)
        total = 0.0
        for product, labels in self._terms:
            total += product * math.prod(counts[n] / self.stream.count for n in labels)
        return round(total) + sum(self.overhead(gone))

    def overhead(self, gone: tuple[int, ...]) -> list[int]:
        """What choosing and moving tokens takes at each place."""
        counts = counts_of(self.stream, gone)
        return [
            self._cost(counts[i], gone[i], place)
            for i, place in enumerate(self.stream.places[: self._open])
            if gone[i]
        ]

    def _cost(self, count: int, gone: int, place: Place) -> int:
        key = count, gone, place
        if key not in self._costs:
            width, heads, channels = place.sizes
            reduction = KINDS[self.method](count, gone, self.stream.kept, 0.0)
            self._costs[key] = reduction.macs(width, heads, channels)
        return self._costs[key]

    def error(self, gone: tuple[int, ...]) -> float:
        """Squared error of the first output, summed over samples."""
        module = copied(self.base)
        shorten(module, self.stream, gone, self.method, self.proportional)
        return sum(
            float((self._outputs(module, x) - y).double().square().sum())
            for x, y in zip(self.pieces, self.whole, strict=True)
        )

    def db(self, error: float) -> float | None:
        """The SQNR that an error leaves."""
        return 10 * math.log10(self.scale / error) if error and self.scale else None

    def _outputs(self, module: GraphModule, x: Tensor) -> Tensor:
        with torch.no_grad():
            found: Tensor = torch.vmap(module)(x[:, None])[0] if self.mapped else module(x)[0]
        return found


def _terms(module: GraphModule, stream: Stream) -> Iterator[tuple[int, list[int]]]:
    """Every product's multiply-accumulates, and the counts of tokens that scale it."""
    for node in module.graph.nodes:
        if node.target not in g.PRODUCT:
            continue
        labels = list(stream.axes.get(node.name, {}).values())
        if node.target in g.MATRIX_PRODUCT:
            left = arguments(node)[0]
            inner = stream.axes.get(left.name, {}).get(len(shape(left)) - 1)
            labels += [] if inner is None else [inner]
        yield macs(node), labels
