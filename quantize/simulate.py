"""A draft as a float function of many samples: fast, differentiable, every rounding a module.

What the algorithms look at and change. The numbers are those of the quantized program up to the
last bits of floats; what ships is proven with the program itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from edgemix import graph as g
from edgemix.batched import batched
from edgemix.encoding import Encoding
from edgemix.program import Program
from edgemix.quantize.insert import Edge, insert
from edgemix.quantize.plan import Plan

Reads = dict[str, tuple[Tensor, ...]]
_AT_ONCE = 32
_READ_AT_ONCE = 8
"""Fewer, since what many nodes read is kept for as long as a batch is looked at."""


class Rounding(nn.Module):
    """One value's quantization."""

    def __init__(self, encoding: Encoding) -> None:
        """Take an encoding."""
        super().__init__()
        self.encoding = encoding
        self.enabled = True

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if not self.enabled:
            return x
        e = self.encoding
        return torch.fake_quantize_per_tensor_affine(x, e.scale[0], e.zero_point[0], e.qmin, e.qmax)


class RoundedConstant(nn.Module):
    """One weight's or constant's quantization, as one reader sees it."""

    def __init__(self, value: Tensor, encoding: Encoding) -> None:
        super().__init__()
        self.enabled = True
        self.real = value
        self.encoding = encoding
        self.set(value)

    def set(self, value: Tensor, encoding: Encoding | None = None) -> None:
        """Round another value, in the same encoding or a new one."""
        self.encoding = encoding or self.encoding
        self.value = value
        self.coded = self.encoding.dequantize(self.encoding.quantize(value))

    def forward(self) -> Tensor:  # noqa: D102
        return self.coded if self.enabled else self.real


class Simulation:
    """A program with a plan's roundings, over samples [n, ...]."""

    def __init__(
        self, program: Program, plan: Plan, values: Mapping[Edge, Tensor] | None = None
    ) -> None:
        """Take a float program, its plan, and constants in the place of the program's."""
        self.program = program
        self.plan = plan
        self.module, _, mapped = batched(program)
        self.at_once = program.inputs[0].shape[0] if mapped else _AT_ONCE
        """Samples in one pass: a graph whose batch cannot be opened takes those that it has."""
        self.values: dict[str, Rounding] = {}
        """Roundings of values, by the node that computes them."""
        self.narrow: dict[Edge, Rounding] = {}
        """Roundings of operands."""
        self.constants: dict[Edge, RoundedConstant] = {}
        """By the node that reads, and the constant."""
        self.nodes = {n.name: n for n in self.module.graph.nodes}
        insert(self.module, plan, _Modules(self, values or {}))
        self.module.graph.lint()
        self.module.recompile()

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The first output, [n, ...]; gradients flow if they are wanted."""
        pieces = zip(*(torch.split(x, self.at_once) for x in inputs), strict=True)
        return torch.cat([self.module(*piece)[0] for piece in pieces])

    def run(self, x: Tensor) -> Tensor:
        """The first output of many samples, without gradients."""
        with torch.no_grad():
            return self(x)

    def reads(
        self, x: Tensor, wanted: Collection[str], size: int = _READ_AT_ONCE
    ) -> Iterator[Reads]:
        """What some nodes read, batch by batch: all tensors among their arguments, by node name."""
        for batch in torch.split(x, min(size, self.at_once)):
            found: Reads = {}

            class Reader(Interpreter):
                def run_node(self, n: Node) -> Any:
                    if n.name in wanted:
                        args, _ = self.fetch_args_kwargs_from_env(n)
                        found[n.name] = tuple(a for a in args if isinstance(a, Tensor))  # noqa: B023
                    return super().run_node(n)

            with torch.no_grad():
                Reader(self.module).run(batch)
            yield found

    def roundings(self) -> Iterator[Rounding | RoundedConstant]:
        """All of them."""
        yield from self.values.values()
        yield from self.narrow.values()
        yield from self.constants.values()

    @contextmanager
    def only(self, chosen: Callable[[object], bool] = lambda _: False) -> Iterator[None]:
        """Round only what is chosen; by default nothing: the float program."""
        before = [(r, r.enabled) for r in self.roundings()]
        for rounding, _ in before:
            rounding.enabled = chosen(rounding)
        try:
            yield
        finally:
            for rounding, enabled in before:
                rounding.enabled = enabled


class Recorded(Interpreter):
    """A simulation's values for one pass: what depends on a rounding is computed again alone."""

    def __init__(self, simulation: Simulation, x: Tensor) -> None:
        """Run samples [n, ...], as many as go at once, with the roundings as they are."""
        super().__init__(simulation.module, garbage_collect_values=False)
        self._nodes: list[Node] = list(simulation.module.graph.nodes)
        self._of = {self.fetch_attr(str(n.target)): n for n in self._nodes if n.op == "call_module"}
        with torch.no_grad():
            self.run(x)
        self._first = dict(self.env)

    def outputs(self, changed: Collection[nn.Module]) -> Tensor:
        """The first output if these roundings are as they are now, and all others as at first."""
        dirty = {self._of[r] for r in changed if r in self._of}
        self.env = dict(self._first)
        with torch.no_grad():
            for node in self._nodes:
                if node.op == "output":
                    found: Tensor = self.env[node.args[0][0]]  # type: ignore[index]
                    return found
                if node in dirty or not dirty.isdisjoint(node.all_input_nodes):
                    dirty.add(node)
                    self.env[node] = self.run_node(node)
        raise AssertionError("a graph has an output")


class _Modules:
    """Roundings as modules of the simulation's graph."""

    def __init__(self, simulation: Simulation, values: Mapping[Edge, Tensor]) -> None:
        self._simulation = simulation
        self._values = values

    def value(self, node: Node, encoding: Encoding, edge: Edge | None) -> Callable[[], Node]:
        rounding = Rounding(encoding)
        if edge is None:
            self._simulation.values[node.name] = rounding
        else:
            self._simulation.narrow[edge] = rounding
        name = f"round_{len(self._simulation.values)}_{len(self._simulation.narrow)}"
        new = self._call(node, name, rounding, (node,))
        return lambda: new

    def constant(self, node: Node, encoding: Encoding, edge: Edge) -> Node:
        real = g.constant(self._simulation.module, node)
        rounded = RoundedConstant(real, encoding)
        if edge in self._values:
            rounded.set(self._values[edge])
        self._simulation.constants[edge] = rounded
        name = f"constant_{len(self._simulation.constants)}"
        return self._call(node, name, rounded, ())

    def _call(self, node: Node, name: str, module: nn.Module, args: tuple[Node, ...]) -> Node:
        self._simulation.module.add_submodule(name, module)
        new = node.graph.call_module(name, args)
        new.meta["val"] = node.meta.get("val")
        return new
