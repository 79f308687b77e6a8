"""Which tokens go, and what becomes of them: three published methods in static shapes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgemix.quantize.prune.choices import TokenMethod
from edgemix.quantize.prune.selection import Close, First, Highest, Order, Pick, only

_TINY = 1e-6


class Reduction(nn.Module):
    """From ``count`` tokens to ``gone`` fewer.

    The first ``kept`` tokens keep their place; the others have none.
    """

    def __init__(self, count: int, gone: int, kept: int) -> None:
        super().__init__()
        self.kept, self.free, self.gone = kept, count - kept, gone

    @staticmethod
    def most(free: int) -> int:
        """How many of so many tokens can go."""
        return max((free - 1) // 2, 0)

    def macs(self, width: int, heads: int, channels: int) -> int:
        """Multiply-accumulates of choosing and moving tokens.

        Args:
            width: channels of a token.
            heads: of the attention.
            channels: of a key in one head.
        """
        raise NotImplementedError

    def unit(self, keys: Tensor) -> Tensor:
        """Keys [n, heads, channels, count] of the free tokens, the mean of heads, at length one."""
        mean = keys.mean(1).transpose(1, 2)[:, self.kept :]
        return mean * torch.rsqrt((mean * mean).sum(-1, keepdim=True) + _TINY)


class Merging(Reduction):
    """Tokens merge, and count how many they stand for."""

    def forward(self, x: Tensor, size: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Fewer tokens, and their sizes.

        Args:
            x: [n, count, channels].
            size: of the free tokens: [n, free, 1].
            keys: of their attention: [n, heads, channels, count].
        """
        free, size = self.merge(x[:, self.kept :], size, self.unit(keys))
        return torch.cat([x[:, : self.kept], free], 1) if self.kept else free, size

    def merge(self, x: Tensor, size: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """The same of free tokens."""
        raise NotImplementedError


class ToMe(Merging):
    """Every second token may merge with one of the others; the most alike do."""

    def __init__(self, count: int, gone: int, kept: int, depth: float) -> None:
        super().__init__(count, gone, kept)
        some = -(-self.free // 2)
        self.order, self.first, self.pick = Order(some), First(gone), Pick(gone)
        self.highest, self.close = Highest(self.free - some), Close(some, gone)

    def macs(self, width: int, heads: int, channels: int) -> int:  # noqa: D102
        some, others, gone = -(-self.free // 2), self.free // 2, self.gone
        chosen = some * others * (channels + gone)
        return chosen + self.free * gone * (width + 1) + self.close.macs(width + 1)

    def merge(self, x: Tensor, size: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        alike = keys[:, ::2] @ keys[:, 1::2].transpose(1, 2)
        order = self.order(alike.amax(-1))
        pick = self.pick(order)
        goal = self.highest(pick @ alike).transpose(1, 2)
        whole = x * size
        sums = whole[:, 1::2] + goal @ (pick @ whole[:, ::2])
        sizes = size[:, 1::2] + goal @ (pick @ size[:, ::2])
        close = self.close.matrix(self.first(order))
        left, left_size = (self.close.move(v[:, ::2], close) for v in (x, size))
        return torch.cat([left, sums / sizes], 1), torch.cat([left_size, sizes], 1)


class PiToMe(Merging):
    """Of the tokens in the densest crowds, every second merges with one of the others."""

    def __init__(self, count: int, gone: int, kept: int, depth: float) -> None:
        super().__init__(count, gone, kept)
        self.margin = 0.9 - 0.9 * depth
        self.order, self.pick = Order(self.free), Pick(gone, 0, 2)
        self.goals, self.highest = Pick(gone, 1, 2), Highest(self.free)
        self.close = Close(self.free, gone)

    def macs(self, width: int, heads: int, channels: int) -> int:  # noqa: D102
        free, gone = self.free, self.gone
        chosen = free * (free + 2 * gone) * channels
        return chosen + 2 * free * gone * (width + 1) + self.close.macs(width + 1)

    def merge(self, x: Tensor, size: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:  # noqa: D102
        alike = keys @ keys.transpose(1, 2)
        energy = nn.functional.elu(alike - self.margin).mean(-1)
        order = self.order(energy)
        pick = self.pick(order)
        goals = self.goals(order).sum(1, keepdim=True)
        goal = self.highest(only(pick @ keys @ keys.transpose(1, 2), goals)).transpose(1, 2)
        sums = x * size + goal @ (pick @ (x * size))
        sizes = size + goal @ (pick @ size)
        close = self.close.matrix(pick.sum(1))
        return self.close.move(sums / sizes, close), self.close.move(sizes, close)


class ZeroTPrune(Reduction):
    """Half of what goes is like a token of more weight, half has the least weight of all."""

    def __init__(self, count: int, gone: int, kept: int, depth: float) -> None:
        super().__init__(count, gone, kept)
        self.walks = 2
        self.order, self.twins = Order(self.free), gone // 2
        self.first = First(self.twins)
        self.lightest = gone - self.twins - 0.5
        self.close = Close(self.free, gone)

    @staticmethod
    def most(free: int) -> int:  # noqa: D102
        return max(free - 1, 0)

    def macs(self, width: int, heads: int, channels: int) -> int:  # noqa: D102
        walks = self.walks * heads * (self.kept + self.free) ** 2
        alike = self.free**2 * (channels + 1 if self.twins else 1)
        return walks + alike + self.close.macs(width)

    def forward(self, x: Tensor, attention: Tensor, keys: Tensor) -> Tensor:
        """Fewer tokens: [n, count, channels] → [n, count − gone, channels].

        Args:
            x: the tokens.
            attention: probabilities [n, heads, count, count].
            keys: [n, heads, channels, count].
        """
        order = self.order(self.weight(attention)[:, self.kept :])
        gone = self.alike(self.unit(keys), order)
        left = 1.0 - gone
        below = (left.unsqueeze(1) @ order).squeeze(1)
        gone = gone + (below < self.lightest).float() * left
        free = self.close.move(x[:, self.kept :], self.close.matrix(gone))
        return torch.cat([x[:, : self.kept], free], 1) if self.kept else free

    def weight(self, attention: Tensor) -> Tensor:
        """Of each token, by walks along the attention of all to all: → [n, count]."""
        found = attention.mean(2, keepdim=True)  # the first walk, from everywhere alike
        for _ in range(self.walks):
            found = found @ attention
        return (found * found).mean((1, 2))

    def alike(self, keys: Tensor, order: Tensor) -> Tensor:
        """The tokens most like one that comes before them in order: zeros and ones."""
        if not self.twins:
            return order.sum(-1) * 0.0
        alike = only(keys @ keys.transpose(1, 2), order)
        twins: Tensor = self.first(self.order(alike.amax(-1)))
        return twins


KINDS: dict[TokenMethod, type[ToMe] | type[PiToMe] | type[ZeroTPrune]] = {
    "tome": ToMe,
    "pitome": PiToMe,
    "zerotprune": ZeroTPrune,
}
