"""What the user asked of a deployment, and who hears of its progress."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgemix.quantize.levels import Quality
from edgemix.quantize.prune.recipe import Pruning
from edgemix.targets.coreml.shipping import Shipping
from edgemix.targets.fpga.hardware import Hardware


@dataclass(frozen=True)
class Order:
    """What the user asked for."""

    source: str
    targets: tuple[str, ...]
    out: Path
    evaluate: str
    calibrate: str | None = None
    """None only for a source that comes quantized."""
    recipe: str | None = None
    """None: ``int8`` or, for a source that comes quantized, as it is."""
    quality: Quality | None = None
    """The algorithms that improve it; None: those that the recipe names."""
    pruning: Pruning | None = None
    """What is cut before it is quantized; None: nothing."""
    bits: str | None = None
    """``w4a8``: widths of weights and activations in place of the recipe's; None leaves them."""
    samples: int = 512
    """Calibration samples at most."""
    evaluate_samples: int | None = None
    """Samples to prove the artifacts on at most; None is all."""
    step: bool = False
    """Deploy one step of a model that works on sequences, its memory as states."""
    chunk: int | None = None
    """Steps that the program takes at once; None is one."""
    unroll: bool = False
    """Deploy a whole sequence as one program, recurrent layers written out."""
    stream: int = 1000
    """Steps between two resets that a program with states has to stand."""
    devices: tuple[str, ...] = ()
    """Names, or .toml files, of devices that times are estimated for."""
    budgets: tuple[str, ...] = ()
    contracts: tuple[str, ...] = ()
    """``target=contract``, where a target's own promise is not what is wanted."""
    max_drop: float = 1.0
    """Largest loss of accuracy against the float program, in points, where labels are known."""
    threads: int = 1
    hardware: Hardware = field(default_factory=Hardware)
    """For FPGA targets."""
    shipping: Shipping = field(default_factory=Shipping)
    """For Core ML."""
    shapes: tuple[tuple[int, ...], ...] = ()
    """Further shapes of the input that Core ML's package takes."""
    force: bool = False
    command: tuple[str, ...] = field(default=())


class Listener(Protocol):
    """Hears what a deployment does; the command line draws bars from it."""

    def step(
        self, title: str, total: float | None = None
    ) -> AbstractContextManager[Callable[[float], None]]:
        """One step; the function that it yields takes how much of ``total`` is done."""


class Silence:
    """A listener that says nothing."""

    @contextmanager
    def step(self, title: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """Nothing."""
        yield lambda _: None
