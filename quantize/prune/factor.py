"""Factorization: a linear operator as two smaller ones, where that pays.

A layer that takes part is first written as two that compute the same: its factors, and beside them
inner channels for what they miss. From there on factorizing is pruning: those channels are one more
width of the program, which is cut, and both factors are fitted like all that pruning leaves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.program import Program, Step
from edgemix.quantize.prune.axes import Units, units_of
from edgemix.quantize.prune.cut import Keep, cut
from edgemix.quantize.prune.factors import at_each_place, second_for
from edgemix.quantize.prune.lockstep import is_shared
from edgemix.quantize.prune.observe import Reader, observe
from edgemix.quantize.prune.ranks import Form, Kind, Point, choose, covariance_of, path_of
from edgemix.quantize.prune.refit import refit
from edgemix.quantize.prune.rules import groups
from edgemix.quantize.prune.size import Counted

_OBSERVED = 0.3
"""Of the time, roughly; the rest is for fitting."""


@dataclass(frozen=True)
class Factored:
    """One linear operator and what became of it."""

    where: g.Where
    shape: tuple[int, ...]
    """Of its weight."""
    rank: int | None = None
    """Inner channels; None for a layer that stays whole."""
    form: Form = "kernel first"
    saved: int = 0
    """Multiply-accumulates or weights, whichever the budget counts; of a sparse factor, nonzeros
    and their places."""
    error: float = 0.0
    """Of the outputs, predicted: squared, each output divided by its deviation."""
    reason: str = ""
    """Why it stays whole."""


def factorize(
    program: Program,
    samples: Tensor,
    budget: float,
    counted: Counted = "macs",
    kinds: tuple[Kind, ...] = ("low-rank",),
    on_step: Callable[[float], None] = lambda _: None,
) -> tuple[Program, tuple[Factored, ...]]:
    """Replace linear operators by two smaller ones, and fit both to what the whole ones computed.

    Ranks are those of least predicted error of the outputs: the next inner channel to go is always
    the one that buys most. Layers for which no rank is cheaper stay whole.

    Dense and sparse factors save stored weights, and multipliers of an FPGA; float runtimes
    multiply by their zeros.

    Args:
        program: float, after the standard rewrites, with one input.
        samples: [n, ...]; of a program with states [n, steps, ...].
        budget: what stays, as a share of all there is: above 0, below 1.
        counted: what the budget is a share of: multiply-accumulates or weights.
        kinds: of factors; dense and sparse ones go with a budget of weights.
        on_step: called with the share that is done.

    Returns:
        The program, and what became of every linear operator, in the graph's order.

    Raises:
        InputError: the budget cannot be met, nothing pays, the kinds do not go with what is
            counted, or the program cannot be observed.
    """
    _check(program, budget, counted, kinds)
    total = multiply_accumulates(program) if counted == "macs" else program.parameters
    nodes = {n.name: n for n in program.shared.graph.nodes if n.target in g.LINEAR}
    reasons = {name: _reason(node) for name, node in nodes.items()}
    found = observe(
        program, units_of(program), samples, None,
        lambda done: on_step(_OBSERVED * done / len(samples)),
    )  # fmt: skip
    readers = {r.node: r for r in found.readers if not reasons[r.node]}
    paths = {name: path_of(nodes[name], reader, counted, kinds) for name, reader in readers.items()}
    chosen = choose(paths, total, budget * total)
    step = Step("factorize", {"share": budget, "counted": counted, "layers": len(chosen)})
    pair = _with_factors(program, readers, chosen, step)
    small = refit(*pair, samples, lambda share: on_step(_OBSERVED + (1 - _OBSERVED) * share))
    return small, tuple(
        _told(node, reasons[name], paths.get(name, ()), chosen.get(name))
        for name, node in nodes.items()
    )


def _check(program: Program, budget: float, counted: Counted, kinds: tuple[Kind, ...]) -> None:
    if not 0 < budget < 1:
        raise InputError(
            f"the budget {budget:g} is no share of what there is", do="give one between 0 and 1"
        )
    if unknown := set(kinds) - set(get_args(Kind)):
        raise InputError(
            f"there are no factors of the kind {', '.join(sorted(unknown))}",
            do=f"take some of: {', '.join(get_args(Kind))}",
        )
    if counted == "macs" and "dense-sparse" in kinds:
        raise InputError(
            "the zeros of a sparse factor are multiplied by like any other weight",
            do="count parameters, or leave dense-sparse out",
        )
    if len(program.inputs) != 1:
        raise InputError(
            "factors are fitted on samples of one input",
            at=program.origin.source,
            do="factorize the part of the model that has one input",
        )


def _reason(node: Node) -> str:
    """Why an operator must stay whole; empty where it need not."""
    weight: Any = node.args[1]
    if weight.op != "get_attr":
        return "its weight is computed"
    if groups(node) > 1:
        return "its groups have no channel in common"
    return "its weight is shared" if is_shared(weight) else ""


def _with_factors(
    program: Program, readers: Mapping[str, Reader], chosen: Mapping[str, Point], step: Step
) -> tuple[Program, Program, Units, Keep]:
    """The program with factors and all that they miss, that without, and its units."""
    module = program.module()
    kept = {
        _split(module, node, readers[node.name], chosen[node.name]): chosen[node.name].first
        for node in list(module.graph.nodes)
        if node.name in chosen
    }
    whole = program.with_module(module)
    units = units_of(whole)
    keep = units.everything()
    for name, first in kept.items():
        assert first is not None
        keep[units.constants[name][0][len(first) :]] = False
    return whole, cut(whole, units, keep, step), units, keep


def _split(module: GraphModule, node: Node, reader: Reader, point: Point) -> str:
    """Two operators in place of one, which give the same; the name of the first one's weight."""
    weight: Any = node.args[1]
    rows, channels, *kernel = g.shape_of(weight)
    ones = [1] * len(kernel)
    first, second = _complete(reader, point)
    options: Any = node.args[3:]
    if point.form != "channels first":
        shapes = ((len(first), channels, *kernel), (rows, len(first), *ones))
        ahead, behind = options, ()
    else:
        shapes = ((len(first), channels, *ones), (rows, len(first), *kernel))
        ahead, behind = (), options
    a = g.add_constant(module, node, "edgemix_factor", first.float().reshape(shapes[0]))
    b = g.add_constant(module, node, "edgemix_factor", second.float().reshape(shapes[1]))
    bias: Any = node.args[2] if len(node.args) > 2 else None
    if bias is None:  # what factors miss has a mean
        bias = g.add_constant(module, node, "edgemix_factor", torch.zeros(rows))
    assert callable(node.target)
    with module.graph.inserting_before(node):
        inner = module.graph.call_function(node.target, (node.args[0], a, None, *ahead))
        result = module.graph.call_function(node.target, (inner, b, bias, *behind))
    for new in (inner, result):
        new.meta |= {k: v for k, v in node.meta.items() if k in ("nn_module_stack", "stack_trace")}
    node.replace_all_uses_with(result)
    module.graph.erase_node(node)
    return str(a.target)


def _complete(reader: Reader, point: Point) -> tuple[Tensor, Tensor]:
    """Both factors, and behind their inner channels those for what they miss."""
    weight, first = reader.weight.double(), point.first
    assert first is not None
    places = weight.shape[1] // first.shape[1]
    seen = at_each_place(first, places)
    second = point.second
    if second is None:
        second = second_for(weight, covariance_of(reader), seen)
    rest = weight - second @ seen
    rows, columns = len(weight), first.shape[1]
    if places == 1 and rows < columns:
        more = torch.eye(rows, dtype=rest.dtype)
        return torch.cat([first, rest]), torch.cat([second, more], 1)
    more = torch.eye(columns, dtype=rest.dtype)
    return torch.cat([first, more]), torch.cat([second, rest], 1)


def _told(node: Node, reason: str, path: tuple[Point, ...], point: Point | None) -> Factored:
    weight: Any = node.args[1]
    where, shape = g.where(node), g.shape_of(weight)
    if point is None or point.first is None:
        pays = len(path) > 1
        why = "others save as much for less error" if pays else "two are not cheaper than one"
        return Factored(where, shape, reason=reason or why)
    saved = path[0].cost - point.cost
    return Factored(where, shape, len(point.first), point.form, saved, point.error)
