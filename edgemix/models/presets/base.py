"""What a preset is: a published model, and what its authors say of its size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from edgemix.models.lively import Factory, drawn

__all__ = ["Factory", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A published model: how it is built, and what its authors say of its size."""

    build: Callable[[], nn.Module]
    input: tuple[int, ...]
    """Of one sample: [channels, height, width], of a model with a memory [time, ...]."""
    parameters: float | None
    """Learned ones in millions, as published; None where nobody published them."""
    macs: float | None
    """In billions, as published; None where nobody published them."""
    source: str
    frozen: float = 0.0
    """Those that are drawn and never learned, in millions."""
    uncounted: float = 0.0
    """Learned ones that the authors' own count leaves out, in millions."""
    folded: bool = False
    """Whether they are counted after norms and branches became one convolution."""
    counted: float | None = None
    """Where what is published leaves parts open: the learned ones of what is built here."""

    def factory(self) -> Factory:
        """The model with weights drawn for seed 0, and an example input [1, ...]."""
        return drawn(self.build, self.input)
