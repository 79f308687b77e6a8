"""What others make of the same model, data and bits, each in one file.

A peer is a function ``quantize(model, calibration, bits)``: it gives what it made as a function of
inputs [n, ...] to outputs, and says what it quantizes. ``bits`` are (weights, activations).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

Bits = tuple[int, int]


@dataclass(frozen=True)
class Made:
    """What a peer made."""

    run: Callable[[Tensor], Tensor]
    """Inputs [n, ...] to outputs."""
    what: str
    """Which operators it quantizes."""
    every_operator: bool
    """Whether it quantizes the results of all operators, as edgemix does."""
    setting: str = ""
    """The best of its settings, if it was given several."""


class Refused(Exception):
    """The peer cannot take the model, or not in these bits."""


Peer = Callable[[nn.Module, Tensor, Bits], list[Made]]
"""Every setting that was tried; raises Refused."""
