"""What a NIR file does not say: how its continuous neurons step through time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from edgemix.errors import InputError

Reset = Literal["subtract", "zero", "none"]
When = Literal["after", "before"]
At = Literal["ge", "gt"]
Current = Literal["integrated", "jump"]


@dataclass(frozen=True)
class Dialect:
    """The discretization in which a library writes and reads NIR.

    The membrane steps by Euler's rule, v' = v + dt / τ · (v_leak − v + R i).
    """

    dt: float
    """Seconds of one step."""
    reset: Reset
    """A spike takes the threshold off the membrane, or sets it to v_reset."""
    when: When
    """The reset happens in the step of the spike, after it, or at the start of the next one."""
    at: At
    """A membrane that just reaches the threshold fires (``ge``), or does not (``gt``)."""
    current: Current = "integrated"
    """An input changes a synaptic current (and an integrator) by dt / τ of itself, or by all."""

    def __post_init__(self) -> None:
        if not 0 < self.dt < 1e3:
            raise InputError(f"a step of {self.dt} s is none", do="give dt in seconds, like 1e-4")


LIBRARIES = {
    "snntorch": Dialect(1e-4, "subtract", "before", "gt"),
    # Norse steps by 1 ms and writes τ · dt where NIR wants τ.
    "norse": Dialect(1e-6, "zero", "after", "gt", "jump"),
    "spikingjelly": Dialect(1e-4, "zero", "after", "ge"),
}
"""As snnTorch 1.0, Norse 1.1 and SpikingJelly 2.0 export with their defaults."""

_KINDS = {"reset": Reset, "when": When, "at": At, "current": Current}
_HOW = (
    "write FILE.nir?like=snntorch (or norse, spikingjelly), or FILE.nir?dt=1e-4&reset=subtract&"
    "when=after&at=ge; reset: subtract, zero, none; when: after, before; at: ge, gt"
)


def parse(options: dict[str, str]) -> Dialect:
    """The dialect that options name: ``like`` a library, or field by field.

    Raises:
        InputError: something is missing or unknown; nothing is assumed.
    """
    given = dict(options)
    like = given.pop("like", None)
    if like is not None and like not in LIBRARIES:
        raise InputError(f"there is no dialect {like}", do=_HOW)
    fields: dict[str, object] = {}
    for name, text in given.items():
        if name == "dt":
            try:
                fields[name] = float(text)
            except ValueError as error:
                raise InputError(f"dt={text} is no number of seconds", do=_HOW) from error
        elif name in _KINDS and text in get_args(_KINDS[name]):
            fields[name] = text
        else:
            raise InputError(f"{name}={text} says nothing about a NIR file", do=_HOW)
    if like is not None:
        return replace(LIBRARIES[like], **fields)  # type: ignore[arg-type]
    missing = [name for name in ("dt", "reset", "when", "at") if name not in fields]
    if missing:
        raise InputError(f"a NIR file does not say {', '.join(missing)}", do=_HOW)
    return Dialect(**fields)  # type: ignore[arg-type]
