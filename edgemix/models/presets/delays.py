"""DCLS-Delays, for the spiking Heidelberg digits and for both forms of the speech commands."""

from __future__ import annotations

from functools import partial

from edgemix.models.presets.base import Preset
from edgemix.models.spiking.delays import DelayedLinear, DelayMlp
from edgemix.streaming.protocol import Stepwise

_INPUTS, _STEPS = 140, 100
"""700 channels in bins of five; a second in steps of 10 ms."""


def _network(
    hidden: tuple[int, ...], classes: int, longest: int, count: int, tau: float
) -> Stepwise:
    """LIF neurons without decay of inputs, reset to zero; the readout is delayed too."""
    leak = 1.0 / tau
    return DelayMlp(
        _INPUTS, hidden, classes, longest=longest, count=count, leak=leak, reset="zero",
        head=partial(DelayedLinear, longest=longest, count=count), readout_leak=leak,
    )  # fmt: skip


def _of(
    hidden: tuple[int, ...], classes: int, longest: int, count: int, tau: float, parameters: float
) -> Preset:
    build = partial(_network, hidden, classes, longest, count, tau)
    source = "Hammouamri et al., Learning Delays in Spiking Neural Networks, ICLR 2024, table 1"
    return Preset(build, (_STEPS, _INPUTS), parameters, None, f"{source}, and its code")


_COMMANDS = partial(_of, classes=35, longest=31, tau=1.5)

PRESETS = {
    "delays_shd": _of((256, 256), 20, 25, 1, 1.005, 0.2),
    "delays_commands_2l": _COMMANDS((512, 512), count=1, parameters=0.7),
    "delays_commands_3l": _COMMANDS((512, 512, 512), count=1, parameters=1.2),
    "delays_commands_3l_2kc": _COMMANDS((512, 512, 512), count=2, parameters=2.5),
}
