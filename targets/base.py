"""The protocol that every target keeps, and the nouns that it speaks in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edgemix.encoding import Encoding
from edgemix.graph import Where
from edgemix.latency.base import Latency
from edgemix.latency.profile import Told
from edgemix.latency.resources import Resources
from edgemix.program import Program, StateSpec, TensorSpec
from edgemix.proof import Contract

Arrays = tuple[npt.NDArray[np.float32], ...]
Progress = Callable[[float], None]

Arithmetic = Literal[
    "integer", "fixed", "float between integers", "float16 between integers", "float"
]
"""In which type an operator really computes. ``float between integers``: its inputs and outputs
are quantized values, the arithmetic in between is float. ``float``: a value stays unquantized."""


@dataclass(frozen=True)
class Finding:
    """Something that a target cannot take."""

    where: Where
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.why}; {self.remedy}"


@dataclass(frozen=True)
class OpPrecision:
    """The type in which one operator of the artifact really runs, read back from it."""

    op: str
    name: str
    asked: Arithmetic
    achieved: Arithmetic

    @property
    def kept(self) -> bool:
        """Whether the operator runs as asked."""
        return self.asked == self.achieved


@dataclass(frozen=True)
class Binding:
    """How one input or output of the program is found in the artifact."""

    spec: TensorSpec
    name: str
    """Its name there."""
    layout: str
    dtype: str
    encoding: Encoding | None


@dataclass(frozen=True)
class StateBinding:
    """How one state of the program is carried from step to step."""

    spec: StateSpec
    takes: Binding | None
    """The input that takes it; None where the artifact holds it itself."""
    gives: Binding
    """Where its value after a step can be read."""


@dataclass(frozen=True)
class Artifact:
    """What a target made of a program, in a folder of its own."""

    target: str
    program: str
    """Digest of the program."""
    main: str
    """The file or folder to ship, relative to the artifact's folder."""
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    toolchain: Mapping[str, str]
    """Versions of the packages that made it."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """What else a reader of the report should know (deployment target, opset, precisions …)."""
    states: tuple[StateBinding, ...] = ()
    """What it carries from step to step; such an artifact runs sequences."""

    @property
    def takes(self) -> tuple[Binding, ...]:
        """All that it takes: inputs, then the states that it does not hold itself."""
        return (*self.inputs, *(s.takes for s in self.states if s.takes is not None))

    @property
    def gives(self) -> tuple[Binding, ...]:
        """All that it gives: outputs, then the states of the next step."""
        return (*self.outputs, *(s.gives for s in self.states))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Artifact:
        """The artifact that :meth:`to_json` wrote."""
        fields = dict(value)
        for side in ("inputs", "outputs"):
            fields[side] = tuple(_binding(b) for b in fields[side])
        fields["states"] = tuple(_state(s) for s in fields["states"])
        return cls(**fields)


class Target(Protocol):
    """One place where programs run. Every call that loads a third-party tool runs it in a child."""

    name: ClassVar[str]
    extra: ClassVar[str]
    """The extra that installs what it needs."""
    title: ClassVar[str]
    runtime: ClassVar[str]
    """What runs the artifact, for people."""
    machine: ClassVar[str]
    """``package.module:function`` that makes an artifact with states run, see ``targets.steps``."""

    def supports(self, program: Program) -> tuple[Finding, ...]:
        """Every node that this target cannot take; empty if it takes all."""

    def promise(self, program: Program) -> Contract:
        """What its artifact of a program promises unless the user asks for something else."""

    def lower(self, program: Program, program_file: Path, folder: Path) -> Artifact:
        """Write the artifact's files into ``folder`` (which exists and is empty)."""

    def run(
        self, artifact: Artifact, folder: Path, inputs: Arrays, progress: Progress | None = None
    ) -> Arrays | None:
        """The artifact's outputs as real numbers, or None where this machine cannot run it.

        An artifact with states takes sequences [n, steps, ...], and gives the outputs and then
        the states of every step.
        """

    def audit(self, artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
        """The type in which each operator really runs, read back from the artifact."""

    def latency(self, artifact: Artifact, folder: Path, threads: int) -> Latency | None:
        """Time of one inference, or None where there is no honest number yet."""


@runtime_checkable
class Countable(Protocol):
    """An FPGA target whose artifacts this machine can map to cells."""

    def resources(self, artifact: Artifact, folder: Path) -> Resources:
        """What the artifact takes of the part; minutes of work."""


@runtime_checkable
class Profiling(Protocol):
    """A target whose runtime tells the time of every operator."""

    def profile(
        self, model: Path, threads: int, runs: int | None, progress: Progress | None = None
    ) -> Told:
        """What it tells of a model, an artifact's or any other; None: runs for a few seconds."""


@runtime_checkable
class Adopting(Target, Protocol):
    """A target that runs files which others made, too."""

    suffixes: ClassVar[tuple[str, ...]]
    """Of the files' names."""

    def adopt(self, model: Path, program: Program) -> Artifact:
        """How the file's inputs and outputs bind to a program's."""


@runtime_checkable
class Signing(Protocol):
    """A target whose artifacts carry words for people: what was proven of them is written in."""

    def sign(self, artifact: Artifact, folder: Path, proven: Mapping[str, str]) -> None:
        """Write them into the artifact, after its proof; what it computes stays."""


FLOAT32 = Contract("relative", bound=1e-4)
"""Of a program whose outputs are real numbers, on a target that computes in 32 bits."""


def promised(program: Program, integers: Contract, floats: Contract = FLOAT32) -> Contract:
    """The contract for a program whose first output is integers, or the one for real numbers."""
    return floats if program.output_encodings[0] is None else integers


Bind = Callable[[int, TensorSpec, Encoding | None], Binding]
"""From a tensor's place, what it is and its encoding to where it is in the artifact."""


def bindings(program: Program, take: Bind, give: Bind) -> dict[str, Any]:
    """The fields ``inputs``, ``outputs`` and ``states`` of an artifact that is a pure function.

    Args:
        program: what was lowered.
        take: where each tensor that the graph takes is.
        give: where each tensor that it gives is.
    """
    before = (*program.input_encodings, *program.state_encodings)
    after = (*program.output_encodings, *program.state_encodings)
    takes = [take(i, *pair) for i, pair in enumerate(zip(program.takes, before, strict=True))]
    gives = [give(i, *pair) for i, pair in enumerate(zip(program.gives, after, strict=True))]
    inputs, outputs = len(program.inputs), len(program.outputs)
    held = zip(program.states, takes[inputs:], gives[outputs:], strict=True)
    return {
        "inputs": tuple(takes[:inputs]),
        "outputs": tuple(gives[:outputs]),
        "states": tuple(StateBinding(spec, before, after) for spec, before, after in held),
    }


def plain_bindings(program: Program) -> dict[str, Any]:
    """:func:`bindings` where every tensor keeps its name, and travels as a real number."""

    def bind(_: int, spec: TensorSpec, encoding: Encoding | None) -> Binding:
        return Binding(spec, spec.name, spec.layout, spec.dtype, encoding)

    return bindings(program, bind, bind)


def _state(value: Mapping[str, Any]) -> StateBinding:
    spec = {**value["spec"], "shape": tuple(value["spec"]["shape"])}
    spec["initial"] = tuple(spec["initial"])
    takes = None if value["takes"] is None else _binding(value["takes"])
    return StateBinding(StateSpec(**spec), takes, _binding(value["gives"]))


def _binding(value: Mapping[str, Any]) -> Binding:
    fields = dict(value)
    fields["spec"] = TensorSpec(**{**fields["spec"], "shape": tuple(fields["spec"]["shape"])})
    if fields["encoding"] is not None:
        e = fields["encoding"]
        fields["encoding"] = Encoding(
            **{**e, "scale": tuple(e["scale"]), "zero_point": tuple(e["zero_point"])}
        )
    return Binding(**fields)
