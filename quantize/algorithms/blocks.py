"""Where a program can be cut: blocks between values through which everything passes.

In a residual network these are the sums at the ends of blocks. Neighbours are joined where they
should be reconstructed as one: the halves of one block (a token mixer and its channel mixer), and
the bridge where convolutions hand over to attention, whose error neither side sees alone
(Lee et al., "Q-HyViT", 2023, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Graph, GraphModule, Node

from edgemix import graph as g


@dataclass(frozen=True)
class Block:
    """A part of a graph with one input and one output."""

    start: Node
    """The value that it takes."""
    end: Node
    """The value that it gives."""
    nodes: tuple[Node, ...]
    """What it computes, in order; ``end`` is the last."""

    @property
    def weights(self) -> int:
        """Number of layers in it."""
        return sum(n.target in g.LINEAR for n in self.nodes)


def blocks(module: GraphModule) -> list[Block]:
    """All blocks of a graph with one input, in order; each has a layer with weights."""
    nodes = [n for n in module.graph.nodes if n.op not in ("get_attr", "output")]
    varying = _varying(nodes)
    order = {n: i for i, n in enumerate(varying)}
    last = {
        n: max((order[u] for u in n.users if u in order), default=len(varying)) for n in varying
    }
    cuts: list[Node] = []
    reach = -1
    for i, node in enumerate(varying):
        # Everything before is read by this node at the latest, or by what this node feeds alone.
        if reach <= i and len(node.users) > 0:
            cuts.append(node)
        reach = max(reach, last[node])
    found: list[Block] = []
    start = cuts[0]
    for cut in cuts[1:]:
        inside = tuple(n for n in varying if order[start] < order[n] <= order[cut])
        block = Block(start, cut, inside)
        if (block.weights and cut.target in g.ADDITION | {None}) or cut is cuts[-1]:
            found.append(block)
            start = cut
    return _joined([b for b in found if b.weights] or found)


def _varying(nodes: list[Node]) -> list[Node]:
    found: dict[Node, None] = {}
    for node in nodes:
        if node.op == "placeholder" or any(n in found for n in node.all_input_nodes):
            found[node] = None
    return list(found)


def _joined(found: list[Block]) -> list[Block]:
    result: list[Block] = []
    for block in found:
        before = result[-1] if result else None
        if before is not None and (_same_module(before, block) or _is_bridge(before, block)):
            result[-1] = Block(before.start, block.end, before.nodes + block.nodes)
        else:
            result.append(block)
    return result


def _same_module(a: Block, b: Block) -> bool:
    first, second = _module(a.end), _module(b.end)
    return first is not None and first == second and a.weights + b.weights <= _MOST


_MOST = 8


def _module(node: Node) -> str | None:
    return g.where(node).module


def _is_bridge(a: Block, b: Block) -> bool:
    return not _attends(a) and _attends(b)


def _attends(block: Block) -> bool:
    return any(n.target in g.MATRIX_PRODUCT for n in block.nodes)


def extract(module: GraphModule, block: Block) -> GraphModule:
    """A block as a module of its own, from its start's values to its end's; it shares constants."""
    graph = Graph()
    copies: dict[Node, Node] = {block.start: graph.placeholder("x")}
    inside = set(block.nodes)

    def copy(node: Node) -> Node:
        if node not in copies:
            if node not in inside and node.all_input_nodes:
                raise ValueError(f"{node} reaches into the block from outside")
            copies[node] = graph.node_copy(node, copy)
        return copies[node]

    for node in block.nodes:
        for source in node.all_input_nodes:
            copy(source)
        copy(node)
    graph.output(copies[block.end])
    return GraphModule(module, graph)


def values_at(module: GraphModule, ends: list[Node], *inputs: Any) -> list[Any]:
    """The values of some nodes for one batch."""
    from torch.fx import Interpreter

    found: dict[Node, Any] = {}

    class Keeper(Interpreter):
        def run_node(self, n: Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                found[n] = value
            return value

    wanted = set(ends)
    Keeper(module).run(*inputs)
    return [found[n] for n in ends]
