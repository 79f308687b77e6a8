"""Dropping residual branches as a whole: the sum becomes the stream that goes past them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.batched import outputs
from edgemix.diagnosis import macs
from edgemix.errors import InputError
from edgemix.graph import aten
from edgemix.program import Program, Step
from edgemix.quantize.prune.axes import shape
from edgemix.quantize.prune.lockstep import Lockstep
from edgemix.quantize.prune.memory import behind, without_dead_states
from edgemix.quantize.prune.size import VALUE

_MEASURED = 128
_OPERATOR = 30_000
"""What an operator costs that is there, in multiply-accumulates of the same time."""


@dataclass(frozen=True)
class Branch:
    """What a sum adds to the stream that goes past it."""

    where: g.Where
    sum: str
    """The sum's node."""
    stream: int
    """Which of its terms the other is computed from."""
    nodes: frozenset[str]
    """What nobody else needs, the sum among them."""
    work: int
    """What they cost, in multiply-accumulates of the same time."""


def branches(module: GraphModule, states: int = 0) -> tuple[Branch, ...]:
    """The residual branches of a graph with so many states, in its order."""
    found = []
    fed = dict(g.fed_back(module, states))
    for node in module.graph.find_nodes(op="call_function", target=aten.add.Tensor):
        terms = [a for a in node.args[:2] if isinstance(a, Node)]
        if len(terms) != 2 or any(shape(t) != shape(node) for t in terms):
            continue
        for i, (stream, other) in enumerate((terms, terms[::-1])):
            if stream.op == "call_function" and _unscaled(stream) in behind(other):
                gone = _only_for(node, other, stream, fed)
                where = g.where(other)
                found.append(
                    Branch(where, node.name, i, frozenset(n.name for n in gone),
                           sum(_work(n) for n in gone))
                )  # fmt: skip
                break
    return tuple(found)


def drop_branches(
    program: Program,
    samples: Tensor,
    count: int,
    on_step: Callable[[float], None] = lambda _: None,
) -> tuple[Program, tuple[Branch, ...]]:
    """The program without so many residual branches, the layers left fitted to make up for them.

    One after the other goes the branch without which the outputs change least for the time that it
    takes, by measurement (Zhang et al., "AxFormer", 2020; Muñoz et al., "Mamba-Shedder", 2025).

    Args:
        program: float, after the standard rewrites.
        samples: [n, ...]; of a program with states [n, steps, ...].
        count: how many go.
        on_step: called with the share that is done.

    Raises:
        InputError: there are not as many.
    """
    known = branches(program.shared, len(program.states))
    if len(known) < count:
        raise InputError(
            f"{count} residual branches cannot go: this model has {len(known)}",
            do="ask for fewer",
        )
    some = samples[:_MEASURED]
    whole = outputs(program, some)
    gone: tuple[Branch, ...] = ()
    steps = sum(len(known) - i for i in range(count)) + 1
    done = 0
    for _ in range(count):
        prices = {}
        for branch in known:
            if any(branch.sum in other.nodes for other in gone) or branch in gone:
                continue
            tried = (*gone, branch)
            change = outputs(program, some, lambda m, tried=tried: _drop(m, tried)) - whole  # type: ignore[misc]
            prices[branch] = float(change.double().square().sum()) / branch.work
            done += 1
            on_step(done / steps)
        if not prices:
            raise InputError(
                f"only {len(gone)} residual branches can go: others lie in them",
                do="ask for fewer",
            )
        gone = (*gone, min(prices, key=lambda b: prices[b]))
    module = program.module()
    before = {n.name for n in module.graph.nodes}
    _drop(module, gone)
    step = Step("drop_branches", {"dropped": [str(b.where) for b in gone]})
    left = without_dead_states(program, module) if program.states else None
    names = frozenset(before - {n.name for n in module.graph.nodes})
    small = program.with_module(module, step, states=left)
    pair = Lockstep(program, small, samples, lambda _, value: value, gone=names)
    pair.run(lambda share: on_step((done + share) / steps))
    on_step(1.0)
    return pair.result(Step("refit", {"samples": len(samples)})), gone


def _drop(module: GraphModule, gone: tuple[Branch, ...]) -> None:
    """Let streams go past branches, in place."""
    nodes = {n.name: n for n in module.graph.nodes}
    for branch in gone:
        total = nodes[branch.sum]
        stream: Any = total.args[branch.stream]  # as it is now: one in front may have gone
        total.replace_all_uses_with(stream, propagate_meta=False)
    module.graph.eliminate_dead_code()
    module.recompile()


def _unscaled(node: Node) -> Node:
    """What a residual scale multiplies."""
    terms = node.args[:2]
    if node.target is aten.mul.Tensor and all(isinstance(t, Node) for t in terms):
        values = [t for t in node.all_input_nodes if t.op != "get_attr"]
        return values[0] if len(values) == 1 else node
    return node


def _only_for(total: Node, branch: Node, stream: Node, fed: Mapping[Node, Node]) -> set[Node]:
    """A sum, and what is computed for one term of it and not for the other.

    With it go the states that only this term reads, and what makes them; ``fed`` says of a state
    before a step what it is after it.
    """
    outside = {stream, *behind(stream)}
    inside = {branch, *behind(branch)} - outside
    nexts = [fed[b] for b in inside & fed.keys()]
    inside |= {*nexts, *behind(*nexts)} - outside
    own = {fed[b] for b in inside & fed.keys() if set(b.users) <= inside}
    found = {total}
    (output,) = total.graph.find_nodes(op="output")
    for node in reversed(list(total.graph.nodes)):
        readers = set(node.users) - ({output} if node in own else set())
        if node.op == "call_function" and node in inside and readers <= found:
            found.add(node)
    return found


def _work(node: Node) -> int:
    if node.target in g.VIEW:
        return 0
    values = math.prod(shape(node))
    return _OPERATOR + int(VALUE) * values + (macs(node) if node.target in g.PRODUCT else 0)
