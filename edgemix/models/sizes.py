"""What layers say to sizes that they cannot take."""

from __future__ import annotations

from torch import nn

from edgemix.errors import InputError


def check_size(module: nn.Module, what: str, found: tuple[int, ...], made: tuple[int, ...]) -> None:
    """Raise where an input is not of the size that a layer is made for.

    Args:
        module: the layer.
        what: the input's name for people, in the plural.
        found: the input's size.
        made: the size that is wanted.

    Raises:
        InputError: the sizes differ.
    """
    if tuple(found) != tuple(made):
        raise InputError(
            f"{type(module).__name__} is made for {what} of {_by(made)}, not of {_by(found)}",
            do="give that size, or make the model for the other one",
        )


def check_heads(dim: int, heads: int) -> None:
    """Raise where channels are not so many equal heads.

    Raises:
        InputError: ``dim`` is no multiple of ``heads``.
    """
    if dim % heads:
        raise InputError(f"{dim} channels do not divide into {heads} heads")


def _by(size: tuple[int, ...]) -> str:
    return "×".join(map(str, size))
