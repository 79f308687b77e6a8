"""States that no output depends on any more."""

from __future__ import annotations

from typing import Any

from torch.fx import GraphModule, Node

from edgemix import graph as g
from edgemix.program import Program, StateSpec


def behind(*nodes: Node) -> set[Node]:
    """All that values are computed from, without themselves."""
    seen: set[Node] = set()
    waiting = list(nodes)
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source not in seen:
                seen.add(source)
                waiting.append(source)
    return seen


def without_dead_states(program: Program, module: GraphModule) -> tuple[StateSpec, ...]:
    """Leave out, in place, what a graph takes and gives of states that are for nothing.

    Args:
        program: whose graph it was.
        module: it takes and gives the same, and has lost operators.

    Returns:
        The states that are left.
    """
    (output,) = module.graph.find_nodes(op="output")
    given: Any = list(output.args[0])
    outputs, after = given[: len(program.outputs)], given[len(program.outputs) :]
    before = module.graph.find_nodes(op="placeholder")[len(program.inputs) :]
    needed = {*outputs, *behind(*outputs)}
    while more := {a for b, a in zip(before, after, strict=True) if b in needed} - needed:
        needed |= more | behind(*more)
    live = [node in needed for node in before]
    g.flat(module)
    output.args = ((*outputs, *(a for a, lives in zip(after, live, strict=True) if lives)),)
    module.graph.eliminate_dead_code()
    for node, lives in zip(before, live, strict=True):
        if not lives:
            module.graph.erase_node(node)
    module.recompile()
    return tuple(s for s, lives in zip(program.states, live, strict=True) if lives)
