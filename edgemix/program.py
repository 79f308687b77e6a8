"""Program: a model as one graph with named inputs, outputs and states."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.encoding import Encoding
from edgemix.errors import EdgemixError, InputError
from edgemix.exporting import (
    Leaves,
    call,
    copy_origins,
    export,
    mutated_buffer,
    nested,
    row_major,
)
from edgemix.rollout import Rollout, Together, rollouts
from edgemix.threads import one_thread_each

_WORTH_THREADS_S = 0.02


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and type of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    layout: str = ""
    """One letter per axis, as far as known ("nchw")."""


@dataclass(frozen=True)
class StateSpec:
    """A tensor that one step hands to the next: an input that is fed by an output."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    initial: tuple[float, ...] = (0.0,)
    """What it holds before the first step: one value for all elements, or one for each."""
    fed_by: str = ""
    """Name of the output that becomes this input at the next step."""

    def __post_init__(self) -> None:
        if len(self.initial) not in (1, math.prod(self.shape)):
            raise InputError(
                f"the state {self.name} {self.shape} has {len(self.initial)} initial values",
                do="give one value, or one for each element",
            )
        if not all(math.isfinite(value) for value in self.initial):
            raise InputError(f"the state {self.name} starts with NaN or Inf")

    @property
    def before(self) -> TensorSpec:
        """The state as a graph's input."""
        return TensorSpec(self.name, self.shape, self.dtype)

    @property
    def after(self) -> TensorSpec:
        """The state as a graph's output."""
        return TensorSpec(self.fed_by, self.shape, self.dtype)

    def start(self) -> Tensor:
        """The state before the first step."""
        values = torch.tensor(self.initial, dtype=torch.float32)
        return values.expand(math.prod(self.shape)).reshape(self.shape).clone()


@dataclass(frozen=True)
class Origin:
    """Where a program came from."""

    source: str
    versions: Mapping[str, str] = field(default_factory=dict)
    licence: str = ""


@dataclass(frozen=True)
class Step:
    """One thing that was done to a program."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True)
class Program:
    """A ``torch.export`` graph with named inputs, outputs and states.

    The graph is a pure function. It takes the inputs and then the states, and gives the outputs
    and then the states of the next step, in the order in which they are listed here.

    A quantized program is the same class, with quantize and dequantize nodes in its graph: the
    encodings are read from there (:attr:`encodings`) and stored nowhere else. :meth:`run` is the
    definition of what every artifact has to compute.
    """

    graph: ExportedProgram
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    origin: Origin
    states: tuple[StateSpec, ...] = ()
    history: tuple[Step, ...] = ()

    @classmethod
    def trace(
        cls,
        module: nn.Module,
        example: Sequence[Tensor],
        origin: Origin,
        *,
        states: tuple[StateSpec, ...] = (),
    ) -> Program:
        """Export ``module`` (in evaluation mode) with the shapes of ``example``.

        Raises:
            InputError: the module cannot be exported; the message carries torch's first line.
        """
        module = module.eval()
        try:
            graph = export(module, tuple(example))
            if nested(graph):
                graph = export(Leaves(module), tuple(example))
        except EdgemixError:  # a layer's own words
            raise
        except Exception as error:  # torch.export raises many classes, none of them public
            reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
            raise InputError(
                f"torch.export cannot take this model: {type(error).__name__}: {reason}",
                at=origin.source,
                do="make it export: no data-dependent Python control flow, fixed shapes",
            ) from error
        return cls.from_exported(graph, origin, states=states)

    @classmethod
    def from_exported(
        cls, graph: ExportedProgram, origin: Origin, *, states: tuple[StateSpec, ...] = ()
    ) -> Program:
        """Wrap an exported graph: names and shapes are those that it carries.

        Raises:
            InputError: the graph has symbolic shapes, or inputs or outputs that are no tensors.
        """
        if nested(graph):
            raise InputError(
                "the outputs of a model must be tensors side by side, not in one another",
                at=origin.source,
                do="export a module that returns one flat tuple of them",
            )
        nodes = {node.name: node for node in graph.graph.nodes}
        signature = graph.graph_signature
        takes = tuple(_spec(nodes[n], origin) for n in signature.user_inputs)
        inputs, before = takes[: len(takes) - len(states)], takes[len(takes) - len(states) :]
        names = [n for n in signature.user_outputs if isinstance(n, str)]
        if len(names) != len(signature.user_outputs) or not inputs or len(names) <= len(states):
            raise InputError("inputs and outputs of a model must be tensors", at=origin.source)
        changed = mutated_buffer(graph)
        if changed is not None:
            raise InputError(
                f"the model changes its own buffer {changed}",
                at=origin.source,
                do="return the new value as an output and declare it as a state",
            )
        gives = tuple(_spec(nodes[n], origin) for n in names)
        visible, after = gives[: len(gives) - len(states)], gives[len(gives) - len(states) :]
        outputs = tuple(
            replace(spec, name="output" if len(visible) == 1 else f"output_{i}")
            for i, spec in enumerate(visible)
        )
        for state, old, new in zip(states, before, after, strict=True):
            _check_state(state, old, new, inputs[0].shape[0], origin)
        return cls(graph, inputs, outputs, origin, states)

    @property
    def takes(self) -> tuple[TensorSpec, ...]:
        """Everything that the graph takes: inputs, then states."""
        return (*self.inputs, *(state.before for state in self.states))

    @property
    def gives(self) -> tuple[TensorSpec, ...]:
        """Everything that the graph gives: outputs, then the states of the next step."""
        return (*self.outputs, *(state.after for state in self.states))

    def call(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The graph as the pure function that it is: from :attr:`takes` to :attr:`gives`."""
        return call(self.shared, *tensors)

    def rollout(
        self, *inputs: Tensor, on_sequences: Callable[[int], None] = lambda _: None
    ) -> Rollout:
        """Run a program with states over whole sequences, each from the initial state.

        Args:
            inputs: as many as :attr:`inputs`, each [sequences, steps, ...]: one step of one
                sequence is what the graph takes as a batch of one.
            on_sequences: called with the number of sequences that are done.

        Raises:
            InputError: there are no states, or number, shape or type of the inputs is not what
                the program takes.
        """
        if not self.states:
            raise InputError("a program without states has no steps", do="use run")
        self._check_inputs(inputs, axes=2)
        pieces = list(rollouts(self, inputs, on_sequences))
        found = [torch.cat(piece) for piece in zip(*pieces, strict=True)]
        return Rollout(tuple(found[: len(self.outputs)]), tuple(found[len(self.outputs) :]))

    def run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Run the graph: the living definition of this program.

        A program with states takes sequences [n, steps, ...] and gives the outputs of every step,
        see :meth:`rollout`; one without takes samples [n, ...].

        Every sample is computed by one thread, of large models several at once: no sum depends on
        how many cores there are, and small operators do not wait for threads.

        Args:
            inputs: as many as :attr:`inputs`. A batch larger than the graph's runs sample by
                sample groups of the graph's batch size; it must be a multiple of it.

        Raises:
            InputError: number, shape or type of the inputs is not what the program takes.
        """
        if self.states:
            self._check_inputs(inputs, axes=2)
            found = [p[: len(self.outputs)] for p in rollouts(self, inputs)]
            return tuple(torch.cat(piece) for piece in zip(*found, strict=True))
        self._check_inputs(inputs, axes=1)
        batch = self.inputs[0].shape[0]
        count = inputs[0].shape[0]
        if count % batch:
            raise InputError(f"the number of samples must be a multiple of {batch}: {count}")
        if count == 0:
            return tuple(torch.zeros(0, *spec.shape[1:]) for spec in self.outputs)

        def piece(start: int) -> tuple[Tensor, ...]:
            return self.call(*(t[start : start + batch] for t in inputs))

        starts = range(0, count, batch)
        with one_thread_each() as workers:
            pieces = [piece(start) for start in starts[:1]]  # which prepares what the others use
            clock = time.perf_counter()
            pieces += [piece(start) for start in starts[1:2]]
            # Threads that call small operators wait for the interpreter, and for each other.
            small = time.perf_counter() - clock < _WORTH_THREADS_S
            with ThreadPoolExecutor(1 if small else workers) as pool:
                pieces += pool.map(piece, starts[2:])
        return tuple(torch.cat([p[i] for p in pieces]) for i in range(len(self.outputs)))

    def module(self) -> GraphModule:
        """A fresh ``torch.fx`` module of the graph, with weights as attributes."""
        module = self.graph.module(check_guards=False)
        assert isinstance(module, GraphModule)
        return module

    def example(self) -> tuple[Tensor, ...]:
        """Zeros of the shapes that the graph takes."""
        return tuple(torch.zeros(spec.shape) for spec in self.takes)

    def with_module(
        self, module: GraphModule, *steps: Step, states: tuple[StateSpec, ...] | None = None
    ) -> Program:
        """The program whose graph is ``module``, made by steps: the same inputs and outputs.

        Args:
            module: the new graph.
            steps: what made it.
            states: those of the new graph; None: those of this program.

        Raises:
            EdgemixError: inputs or outputs changed.
        """
        module.graph.lint()
        module.recompile()
        wanted = self
        if states is not None:
            wanted = replace(self, states=states)
            module = g.flat(module)  # the given one checks the shapes that it was exported with
        exported = export(module, wanted.example())
        copy_origins(module, exported)
        program = Program.from_exported(exported, self.origin, states=wanted.states)
        if [s.shape for s in program.takes + program.gives] != [
            s.shape for s in wanted.takes + wanted.gives
        ]:
            names = ", ".join(step.name for step in steps)
            raise EdgemixError(f"the step {names} changed the program's inputs or outputs")
        return replace(
            program, inputs=self.inputs, outputs=self.outputs, history=(*self.history, *steps)
        )

    def _check_inputs(self, inputs: tuple[Tensor, ...], axes: int) -> None:
        if len(inputs) != len(self.inputs):
            raise InputError(f"{len(inputs)} inputs were given, not {len(self.inputs)}")
        for tensor, spec in zip(inputs, self.inputs, strict=True):
            _check_input(tensor, spec, axes)
        if any(t.shape[:axes] != inputs[0].shape[:axes] for t in inputs):
            raise InputError("the inputs have different numbers of samples or steps")

    @cached_property
    def together(self) -> Together:
        """A step of several streams at once, see :class:`edgemix.rollout.Together`."""
        return Together(self.module())

    @cached_property
    def shared(self) -> GraphModule:
        """A module of the graph for all who read or run it; whoever changes it takes a fresh one.

        Making one takes a while: torch writes down its code, and copies all nodes.
        """
        return self.module()

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the graph's operators, their arguments and all weights."""
        digest = hashlib.sha256()
        for node in self.graph.graph.nodes:
            digest.update(f"{node.op} {node.target} {node.args} {node.kwargs}\n".encode())
        for name, tensor in sorted(
            {**self.graph.state_dict, **_tensors(self.graph.constants)}.items()
        ):
            plain = row_major(tensor.detach())  # a single number may have any stride
            digest.update(f"{name} {plain.dtype} {tuple(plain.shape)}\n".encode())
            digest.update(
                plain.reshape(-1).view(torch.uint8).numpy().tobytes() if plain.numel() else b""
            )
        return digest.hexdigest()

    @cached_property
    def encodings(self) -> dict[str, Encoding]:
        """Encoding of every quantized value, by the name of the node that computes it."""
        module = self.shared
        found = {}
        for node in module.graph.nodes:
            if g.is_quantize(node):
                found[g.through_quantization(node).name] = g.encoding_of(module, node)
        return found

    @property
    def quantized(self) -> bool:
        """Whether the graph holds quantized weights or values."""
        return any(g.is_dequantize(node) for node in self.graph.graph.nodes)

    @property
    def recipe(self) -> str:
        """Name of the recipe that it was quantized by; empty where it was not."""
        return str(self._recipe.get("name", ""))

    @property
    def real_borders(self) -> bool:
        """Whether its recipe asks for artifacts that take and give real numbers."""
        return self._recipe.get("borders") == "float"

    @property
    def floats(self) -> str:
        """``float16`` or ``float32``: in what a target that has both computes floats."""
        return str(self._recipe.get("floats", "float16"))

    @property
    def palettes(self) -> bool:
        """Whether its recipe gave weights palettes."""
        return bool((self._recipe.get("weights") or {}).get("palette"))

    @property
    def _recipe(self) -> Mapping[str, Any]:
        """As JSON; empty where no recipe of ours quantized it."""
        recipes = [s.options.get("recipe") for s in self.history if s.name == "quantize"]
        return (recipes[-1] if recipes else None) or {}

    @property
    def output_encodings(self) -> tuple[Encoding | None, ...]:
        """The encodings of the outputs; None for one that stays real."""
        return self._given_encodings[: len(self.outputs)]

    @property
    def state_encodings(self) -> tuple[Encoding | None, ...]:
        """The encodings of the states, the same before a step and after; None for a real one."""
        return self._given_encodings[len(self.outputs) :]

    @cached_property
    def input_encodings(self) -> tuple[Encoding | None, ...]:
        """The encodings of the inputs; None for one that stays real."""
        module = self.shared
        found = [g.produced_encoding(module, n) for n in module.graph.find_nodes(op="placeholder")]
        return tuple(found[: len(self.inputs)])

    @cached_property
    def _given_encodings(self) -> tuple[Encoding | None, ...]:
        module = self.shared
        (result,) = module.graph.find_nodes(op="output")
        values = result.args[0] if isinstance(result.args[0], (tuple, list)) else (result.args[0],)
        return tuple(
            g.encoding_of(module, v) if isinstance(v, Node) and g.is_dequantize(v) else None
            for v in values
        )

    @property
    def parameters(self) -> int:
        """Number of weights (scales and zero points do not count)."""
        module = self.shared
        seen: dict[str, int] = {}
        for node in module.graph.find_nodes(op="get_attr"):
            if g.holds_graph(module, node):
                continue
            users = [u for u in node.users if not (g.is_quantize(u) or g.is_dequantize(u))]
            first = [u for u in node.users if u.args and u.args[0] is node]
            if users or first:
                seen[str(node.target)] = g.constant(module, node).numel()
        return sum(seen.values())

    def save(self, path: Path) -> None:
        """Write the program to one file, whole or absent."""
        from edgemix import archive

        archive.save(self, path)

    @staticmethod
    def load(path: Path) -> Program:
        """Read a program back, bit-identical. No code from the file runs.

        Raises:
            InputError: missing, truncated, or no edgemix program.
        """
        from edgemix import archive

        return archive.load(path)


def timed(function: Callable[[], GraphModule]) -> tuple[GraphModule, float]:
    """A function's result and the seconds that it took."""
    start = time.perf_counter()
    result = function()
    return result, time.perf_counter() - start


def _spec(node: Node, origin: Origin) -> TensorSpec:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise InputError(f"{node.name} is no tensor", at=origin.source)
    if any(not isinstance(n, int) for n in value.shape):
        raise InputError(
            f"{node.name} has a symbolic shape: {tuple(value.shape)}",
            at=origin.source,
            do="export the model with fixed shapes",
        )
    layout = {3: "ntc", 4: "nchw"}.get(value.ndim, "")
    return TensorSpec(
        node.name, tuple(value.shape), str(value.dtype).removeprefix("torch."), layout
    )


def _check_state(
    state: StateSpec, old: TensorSpec, new: TensorSpec, batch: int, origin: Origin
) -> None:
    if not state.shape == old.shape == new.shape or not state.dtype == old.dtype == new.dtype:
        raise InputError(
            f"the state {state.name} is {state.dtype} of shape {state.shape}, a step takes "
            f"{old.dtype} {old.shape} and gives {new.dtype} {new.shape}",
            at=origin.source,
            do="a step must give every state back in the shape in which it takes it",
        )
    if batch != 1:
        raise InputError(
            f"a step takes {batch} streams at once, but holds the states of one",
            at=origin.source,
            do="export the step with batch 1",
        )


def _check_input(tensor: Tensor, spec: TensorSpec, axes: int) -> None:
    if tuple(tensor.shape[axes:]) != spec.shape[1:] or tensor.ndim < axes:
        what = "samples" if axes == 1 else "steps"
        raise InputError(
            f"input {spec.name} has {what} of shape {tuple(tensor.shape[axes:])}",
            do=f"give {what} of shape {spec.shape[1:]}",
        )
    if str(tensor.dtype) != f"torch.{spec.dtype}":
        raise InputError(f"input {spec.name} is {tensor.dtype}", do=f"give {spec.dtype}")


def _tensors(values: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in values.items() if isinstance(value, Tensor)}
