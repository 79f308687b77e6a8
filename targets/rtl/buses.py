"""Which tensor lies where on the module's buses."""

from __future__ import annotations

from dataclasses import dataclass

from edgemix.encoding import FixedPoint


@dataclass(frozen=True)
class Bus:
    """One tensor of the program on a bus, row-major, the first element in the lowest bits."""

    name: str
    fixed: FixedPoint
    count: int
    offset: int = 0
    """Its lowest bit there."""
    start: str = ""
    """What a state holds at the start, hexadecimal."""

    @property
    def bits(self) -> int:
        """Bits that it takes."""
        return self.count * self.fixed.width


@dataclass(frozen=True)
class Ports:
    """The tensors of a module."""

    takes: tuple[Bus, ...]
    gives: tuple[Bus, ...]
    states: tuple[Bus, ...] = ()
