"""Rewrite: a graph becomes an equivalent graph, and the runner checks that it is equivalent.

A rewrite is a frozen dataclass whose fields are its options. The runner, not the rewrite, checks
the promise: whenever a rewrite fires, the program before and after runs on the same inputs.
"""

from __future__ import annotations

import dataclasses
import operator
import time
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.fx import GraphModule, Node
from torch.fx.node import map_arg

from edgemix import graph as g
from edgemix.errors import EdgemixError, UnsupportedError
from edgemix.exporting import call
from edgemix.program import Program, Step

Outputs = tuple[Tensor, ...]


class Rewrite(Protocol):
    """One equivalence-preserving change of a graph."""

    name: ClassVar[str]

    def apply(self, module: GraphModule) -> int:
        """Change ``module`` in place; returns how many places, 0 if it is as it was."""


TOLERANCE = 1e-4
"""Largest difference that a rewrite may make, as a share of the output's range: float32
reassociation gives 1e-6 on the deepest models tried, a wrong rewrite 1e-2 and more."""
_SUM = 1e-6
"""What a sum's order may cost one output, as a share of it: a single number has no range."""
_ROUNDINGS = 10
"""That a rewrite may cost a model that blows roundings up, in those of its own inputs."""


def apply(program: Program, *rewrites: Rewrite) -> Program:
    """Run rewrites in order; the program comes back unchanged where they found nothing.

    Raises:
        EdgemixError: a rewritten program computes something else.
    """
    module = program.module()  # once for all: a large graph is slow to export
    inputs = _random_inputs(program, torch.Generator().manual_seed(0))
    steps: list[Step] = []
    found: Outputs | None = None
    for rewrite in rewrites:
        start = time.perf_counter()
        count = rewrite.apply(module)
        if not count:
            continue
        module.graph.eliminate_dead_code()
        module.graph.lint()
        module.recompile()
        _tell_shapes(module)
        seconds = round(time.perf_counter() - start, 3)
        wanted = program.call(*inputs) if found is None else found
        found = call(module, *inputs)
        _check(program, wanted, found, inputs, rewrite.name)
        own: dict[str, Any] = (
            dataclasses.asdict(rewrite) if dataclasses.is_dataclass(rewrite) else {}
        )
        steps.append(Step(rewrite.name, {**own, "places": count}, seconds))
    return program.with_module(module, *steps) if steps else program


def _tell_shapes(module: GraphModule) -> None:
    """Record what every node's value is, without computing it: later rewrites ask for it."""
    with torch.no_grad():
        for node in module.graph.nodes:
            if node.op == "get_attr":
                value = operator.attrgetter(str(node.target))(module)
                if isinstance(value, Tensor):
                    node.meta["val"] = value
            elif isinstance(node.target, OpOverload):
                given = map_arg((node.args, node.kwargs), lambda source: source.meta["val"])
                node.meta["val"] = node.target(*given[0], **given[1])


def _random_inputs(program: Program, generator: torch.Generator) -> tuple[Tensor, ...]:
    return tuple(torch.randn(spec.shape, generator=generator) for spec in program.takes)


def _check(program: Program, wanted: Outputs, found: Outputs, inputs: Outputs, name: str) -> None:
    """Raise where a rewrite changed what a program gives by more than roundings cost it."""
    for i, (expected, got) in enumerate(zip(wanted, found, strict=True)):
        span = max(float(expected.max() - expected.min()), 1e-6)
        worst = float((expected - got).abs().max())
        if worst <= TOLERANCE * span + _SUM * float(expected.abs().max()):
            continue
        # Deep models without training make per cents of the output of one rounding of an input.
        other = _random_inputs(program, torch.Generator().manual_seed(1))
        rounded = [torch.nextafter(x, y) for x, y in zip(inputs, other, strict=True)]
        own = float((program.call(*rounded)[i] - program.call(*inputs)[i]).abs().max())
        if not worst <= _ROUNDINGS * own:
            raise EdgemixError(
                f"the rewrite {name} changed the result by {worst:.3g} (range {span:.3g})",
                do="report this model: the rewrite is wrong for it",
            )


def inherit(new: Node, old: Node, name: str) -> Node:
    """Give a node that a rewrite made the origin of the node that it stands for."""
    for key in ("nn_module_stack", "stack_trace"):
        if key in old.meta:
            new.meta[key] = old.meta[key]
    new.meta["edgemix_rewrite"] = name
    return new


def drawn(node: Node) -> UnsupportedError:
    """What to say of an operator that drops values: the runner would call it a wrong rewrite."""
    return UnsupportedError(
        "a dropout is on: its results are drawn",
        at=str(g.where(node)),
        do="pass training=self.training, which is False in evaluation mode",
    )


def step(old: Node, name: str, target: Any, *args: Any) -> Node:
    """A new call at the graph's insertion point, with the origin of ``old`` and its own shape."""
    new = old.graph.call_function(target, args)
    values = [a.meta["val"] if isinstance(a, Node) else a for a in args]
    new.meta["val"] = target(*values)
    return inherit(new, old, name)
