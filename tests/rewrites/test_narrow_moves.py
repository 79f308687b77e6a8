"""Permutations of many axes by permutations of few."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import Graph, GraphModule

from edgemix import graph as g
from edgemix import rewrites
from edgemix.graph import aten
from edgemix.program import Origin, Program
from edgemix.rewrites.narrow_moves import MOST, NarrowMoves


@st.composite
def permutations(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(st.lists(st.integers(1, 3), min_size=6, max_size=9))
    return tuple(shape), tuple(draw(st.permutations(range(len(shape)))))


def narrowed(x: Tensor, calls: list[tuple[Any, ...]]) -> tuple[Tensor, Tensor]:
    """What a chain of calls gives, and what the rewritten chain does, in which no value is wide."""
    graph = Graph()
    node = graph.placeholder("x")
    node.meta["val"] = x
    for target, *args in calls:
        value = target(node.meta["val"], *args)
        node = graph.call_function(target, (node, *args))
        node.meta["val"] = value
    graph.output(node)
    expected = node.meta["val"]
    module = GraphModule(nn.Module(), graph)
    assert NarrowMoves().apply(module) == 1
    graph.eliminate_dead_code()
    module.recompile()
    assert all(n.meta["val"].ndim <= MOST for n in graph.nodes if n.op == "call_function")
    return expected, module(x)


@given(permutations())
@example(((2, 3, 2, 3, 2, 3), (5, 4, 3, 2, 1, 0)))  # no two axes stay neighbours
@example(((2, 3, 2, 3, 2, 3), (1, 0, 3, 2, 5, 4)))
@example(((1, 1, 1, 1, 1, 1), (5, 4, 3, 2, 1, 0)))
@example(((2, 3, 2, 3, 2, 3), (0, 1, 2, 3, 4, 5)))
@settings(max_examples=200, deadline=None)
def test_any_permutation_by_few_axes(case: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    shape, order = case
    x = torch.arange(float(math.prod(shape)))
    moves = [(aten.view.default, list(shape)), (aten.permute.default, list(order))]
    assert torch.equal(*narrowed(x, [*moves, (aten.reshape.default, [-1])]))


@st.composite
def chains(draw: st.DrawFn) -> tuple[tuple[int, ...], list[tuple[Any, ...]]]:
    """A shape of six to eight axes, and calls that end as soon as five are left, or by a view."""
    shape = draw(st.lists(st.integers(1, 3), min_size=6, max_size=8))
    value = torch.empty(shape, device="meta")
    calls: list[tuple[Any, ...]] = [(aten.view.default, shape)]
    for kind in draw(st.lists(st.sampled_from(["permute", "swap", "pick", "cut", "sum", "max"]))):
        axis, keep = draw(st.integers(-value.ndim, value.ndim - 1)), draw(st.booleans())
        other = draw(st.integers(-value.ndim, value.ndim - 1))
        two = sorted({axis % value.ndim, other % value.ndim})
        calls.append(
            {
                "permute": (aten.permute.default, draw(st.permutations(range(value.ndim)))),
                "swap": (aten.transpose.int, axis, other),
                "pick": (aten.select.int, axis, value.shape[axis] - 1),
                "cut": (aten.slice.Tensor, axis, 0, 2),
                "sum": (aten.sum.dim_IntList, two, keep),
                "max": (aten.amax.default, [axis], keep),
            }[kind]
        )
        value = calls[-1][0](value, *calls[-1][1:])
        if value.ndim <= MOST:
            return tuple(shape), calls
    return tuple(shape), [*calls, (aten.reshape.default, [-1])]


@given(chains())
@settings(max_examples=200, deadline=None)
def test_what_is_done_to_single_axes(case: tuple[tuple[int, ...], list[tuple[Any, ...]]]) -> None:
    shape, calls = case
    assert torch.equal(*narrowed(torch.arange(float(math.prod(shape))), calls))


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
    """Queries, keys and values of windows; all three come in one value of six axes."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.whole = whole

    def forward(self, x: Tensor) -> Tensor:
        if not self.whole:  # as in Twins (Chu et al., 2021): the product sees six axes too
            x = x.reshape(1, 2, 3, 5, 2, 4).transpose(2, 3)
        x = self.qkv(x)
        q, k, v = x.reshape(1, 10, 6, 3, 2, 2).permute(3, 0, 1, 4, 2, 5).unbind(0)
        return (q @ k.transpose(-2, -1)).softmax(-1) @ v


@pytest.mark.parametrize("whole", [True, False])
def test_attention_in_windows(whole: bool, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 10, 6, 4, generator=generator)
    program = Program.trace(Attention(whole), (x,), Origin("test"))
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
