"""Permutations of many axes by permutations of few."""

from __future__ import annotations

import math

import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Graph, GraphModule, Node

from edgemix import graph as g
from edgemix import rewrites
from edgemix.graph import aten
from edgemix.program import Origin, Program
from edgemix.rewrites.narrow_moves import MOST, NarrowMoves


@st.composite
def permutations(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 3), min_size=6, max_size=9))
    return tuple(shape), tuple(draw(st.permutations(range(len(shape)))))


@given(permutations())
@example(((2, 3, 2, 3, 2, 3), (5, 4, 3, 2, 1, 0)))  # no two axes stay neighbours
@example(((2, 3, 2, 3, 2, 3), (1, 0, 3, 2, 5, 4)))
@example(((1, 1, 1, 1, 1, 1), (5, 4, 3, 2, 1, 0)))
@example(((2, 3, 2, 3, 2, 3), (0, 1, 2, 3, 4, 5)))
@settings(max_examples=200, deadline=None)
def test_any_permutation_by_few_axes(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, order = case
    x = torch.arange(float(math.prod(shape)))
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = value = x

    def call(node: Node, value: Tensor, target: object, *args: object) -> tuple[Node, Tensor]:
        new = graph.call_function(target, (node, *args))  # type: ignore[arg-type]
        new.meta["val"] = target(value, *args)  # type: ignore[operator]
        return new, new.meta["val"]

    node, value = call(node, value, aten.view.default, list(shape))
    node, value = call(node, value, aten.permute.default, list(order))
    node, value = call(node, value, aten.reshape.default, [-1])
    graph.output(node)
    module = GraphModule(nn.Module(), graph)
    assert NarrowMoves().apply(module) == 1
    graph.eliminate_dead_code()
    module.recompile()
    assert all(n.meta["val"].ndim <= MOST for n in graph.nodes if n.op == "call_function")
    assert torch.equal(module(x), value)


class Windows(nn.Module):
    """Partition into windows, something between, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.mix = nn.Linear(4, 4)
        nn.init.normal_(self.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        x = self.norm(x).view(b, h // 2, 2, w // 3, 3, c).permute(0, 1, 3, 2, 4, 5).contiguous()
        x = self.mix(x.view(-1, 6, c))
        x = x.view(b, h // 2, w // 3, 2, 3, c).transpose(2, 3)
        return x.reshape(b, h, w, c)


def widest(program: Program) -> int:
    values = [n.meta["val"] for n in g.float_ops(program.module())]
    return max(v.ndim for v in values if isinstance(v, Tensor))


def test_a_window_partition_keeps_its_channels_apart(generator: torch.Generator) -> None:
    """So a norm's scale finds its way through the partition into the linear operator behind."""
    torch.manual_seed(0)
    x = torch.randn(3, 4, 6, 4, generator=generator)
    program = Program.trace(Windows(), (x,), Origin("test"))
    assert widest(program) == 6
    after = rewrites.standard(program)
    assert widest(after) == MOST
    (norm,) = [n for n in g.float_ops(after.module()) if g.op_name(n) == "permute"][:1]
    assert g.shape_of(norm)[-1] == 4
    torch.testing.assert_close(after.call(x)[0], program.call(x)[0])


class Attention(nn.Module):
    """Queries, keys and values of windows, all three in one value of six axes."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(1, 5, 6, 3, 2, 2).permute(3, 0, 1, 4, 2, 5).unbind(0)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


def test_queries_keys_and_values_are_parted_first(generator: torch.Generator) -> None:
    x = torch.randn(1, 5, 6, 4, generator=generator)
    program = Program.trace(Attention(), (x,), Origin("test"))
    after = rewrites.standard(program)
    assert (widest(program), widest(after)) == (6, MOST)
    torch.testing.assert_close(after.call(x)[0], program.call(x)[0])


class Read(nn.Module):
    """A value of six axes that is not only moved."""

    def forward(self, x: Tensor) -> Tensor:
        wide = x.view(2, 3, 2, 3, 2, 3)
        return wide.permute(5, 4, 3, 2, 1, 0).reshape(-1) + (wide * 2).reshape(-1)


def test_what_others_read_too_stays_as_it_is() -> None:
    program = Program.trace(Read(), (torch.zeros(216),), Origin("test"))
    assert widest(rewrites.standard(program)) == 6
