"""What edgemix asks of whoever estimates times on devices that are not here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from edgemix.latency import device as devices
from edgemix.latency.base import Latency

if TYPE_CHECKING:
    from edgemix.program import Program


class Device(Protocol):
    """A phone, a board or a chip that artifacts are for."""

    @property
    def name(self) -> str:
        """As people type it."""

    @property
    def targets(self) -> Sequence[str]:
        """Names of the targets whose artifacts run there."""


class Estimate(Protocol):
    """A time of one inference that nobody measured, with its error bar."""

    @property
    def latency(self) -> Latency:
        """Of the kind ``estimated``."""

    @property
    def low_ms(self) -> float:
        """The shortest that is likely."""

    @property
    def high_ms(self) -> float:
        """The longest that is likely."""

    @property
    def notes(self) -> Sequence[str]:
        """What it rests on."""


class Estimator(Protocol):
    """From devices' names to times on them."""

    def device(self, text: str) -> Device:
        """A device by name, or by the path of its .toml file.

        Raises:
            InputError: nobody knows it.
        """

    def estimate(self, program: Program, device: Device, target: str) -> Estimate:
        """Time of a quantized program's artifact for ``target`` on a device."""


class _House:
    """By the costs that are fitted to published latencies."""

    def device(self, text: str) -> Device:
        return devices.load(text)

    def estimate(self, program: Program, device: Device, target: str) -> Estimate:
        from edgemix.latency.estimate import estimate

        assert isinstance(device, devices.Device)
        return estimate(program, device, target)


def house() -> Estimator:
    """The estimator that commands use."""
    return _House()
