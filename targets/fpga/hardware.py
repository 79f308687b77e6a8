"""What a designer chooses: part, clock, interface, parallelism."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from edgemix.errors import InputError
from edgemix.targets.fpga.parts import part

Strategy = Literal["latency", "resource", "distributed_arithmetic"]
Backend = Literal["Vivado", "Vitis"]
Interface = Literal["io_parallel", "io_stream"]


@dataclass(frozen=True)
class LayerKnobs:
    """Reuse factor and strategy of the layers whose module path or node name a pattern matches."""

    match: str
    reuse: int | None = None
    strategy: Strategy | None = None

    @classmethod
    def parse(cls, text: str) -> LayerKnobs:
        """``PATTERN=reuse:4,strategy:resource``.

        Raises:
            InputError: another form, an unknown knob or strategy.
        """
        pattern, _, listed = text.rpartition("=")
        knobs = dict(item.partition(":")[::2] for item in listed.split(","))
        strategy, reuse = knobs.get("strategy"), knobs.get("reuse", "1")
        known = set(knobs) <= {"reuse", "strategy"} and reuse.isdigit()
        if not pattern or not known or strategy not in (None, *get_args(Strategy)):
            raise InputError(
                f"no knobs of a layer: {text}",
                do=f"write it like 'stages.0.*=reuse:4,strategy:resource'; strategies: "
                f"{', '.join(get_args(Strategy))}",
            )
        return cls(pattern, int(reuse) if "reuse" in knobs else None, strategy)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Hardware:
    """The device and how a program is laid out on it."""

    part: str = "xc7z020clg400-1"
    clock_ns: float = 10.0
    backend: Backend = "Vivado"
    """Which HLS compiler the C++ is written for."""
    interface: Interface = "io_parallel"
    """Whole tensors at once, or one pixel after the other through line buffers."""
    reuse: int = 1
    """How many products share one multiplier."""
    strategy: Strategy = "latency"
    layers: tuple[LayerKnobs, ...] = ()
    """Exceptions; of several that match, the last one counts."""

    def check(self) -> None:
        """Refuse what no target could build.

        Raises:
            InputError: nobody knows the part, or a factor is not positive.
        """
        part(self.part)
        if min([self.reuse, *(k.reuse or 1 for k in self.layers)]) < 1:
            raise InputError("a reuse factor is at least 1")

    def knobs(self, *names: str) -> tuple[int, Strategy]:
        """Reuse factor and strategy of a layer that is known by these names."""
        reuse, strategy = self.reuse, self.strategy
        for layer in self.layers:
            if any(fnmatchcase(name, layer.match) for name in names):
                reuse, strategy = layer.reuse or reuse, layer.strategy or strategy
        return reuse, strategy

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Hardware:
        """What :meth:`to_json` wrote."""
        layers = tuple(LayerKnobs(**layer) for layer in value["layers"])
        return cls(**{**value, "layers": layers})
