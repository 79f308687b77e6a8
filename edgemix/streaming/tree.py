"""A memory as a flat list of named tensors, and back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from torch import Tensor

from edgemix.errors import InputError
from edgemix.streaming.protocol import State

_NAME = re.compile(r"[A-Za-z_]\w*")


def flatten(state: State, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor of a memory under its path, ``blocks_0_membrane``.

    Raises:
        InputError: the memory is no tree of tensors, or two paths are the same.
    """
    if not isinstance(state, dict):
        raise InputError(
            f"the memory is a {type(state).__name__}",
            do="return a dictionary of tensors, or of dictionaries of tensors",
        )
    seen = set()
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            pairs = list(flatten(value, f"{name}_"))
        elif isinstance(value, Tensor):
            pairs = [(name, value)]
        else:
            raise InputError(f"the state {name} is a {type(value).__name__}", do="make it a tensor")
        for path, tensor in pairs:
            if path in seen:
                raise InputError(f"two states are called {path}", do="rename one")
            seen.add(path)
            yield path, tensor


def rebuild(like: State, tensors: Sequence[Tensor]) -> State:
    """A tree of the same form as ``like`` with other tensors, in the order of :func:`flatten`."""
    rest = iter(tensors)

    def fill(tree: State) -> State:
        return {
            key: next(rest) if isinstance(value, Tensor) else fill(value)
            for key, value in tree.items()
        }

    return fill(like)


def names(state: State) -> tuple[str, ...]:
    """The paths of a memory's tensors.

    Raises:
        InputError: as :func:`flatten`, or a path is no name.
    """
    found = tuple(name for name, _ in flatten(state))
    odd = next((name for name in found if not _NAME.fullmatch(name)), None)
    if odd is not None:
        raise InputError(f"a state cannot be called {odd}", do="use letters, digits and _")
    return found
