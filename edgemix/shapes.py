"""Input shapes that a person asks for, and what changes in a graph with each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemix.errors import InputError


@dataclass(frozen=True)
class Reshaped:
    """A further shape that a program's first input may have, and what changes with it."""

    shape: tuple[int, ...]
    sizes: Mapping[str, Mapping[str, int]]
    """By node, and by the place among its flattened arguments: the whole number."""


def parse(text: str) -> tuple[tuple[int, ...], ...]:
    """``1x50x40,1x100x40`` as shapes.

    Raises:
        InputError: another form, or shapes of different numbers of axes.
    """
    parts = [part.strip().split("x") for part in text.split(",")]
    if not all(n.isdigit() and int(n) > 0 for part in parts for n in part):
        raise InputError(f"no input shapes: {text}", do="write them like 1x50x40,1x100x40")
    shapes = tuple(dict.fromkeys(tuple(int(n) for n in part) for part in parts))
    if len({len(shape) for shape in shapes}) > 1:
        raise InputError(f"input shapes of different numbers of axes: {text}")
    return shapes
