"""Scans of known length as their steps; what depends on values is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._higher_order_ops import associative_scan, cond, scan, while_loop
from torch._higher_order_ops import map as mapped

from edgemix import graph as g
from edgemix import rewrites
from edgemix.errors import UnsupportedError
from edgemix.program import Origin, Program

Body = Callable[["Cell", Tensor], tuple[Tensor, ...]]


class Cell(nn.Module):
    def __init__(self, function: Body) -> None:
        super().__init__()
        self.function = function
        self.given, self.held = nn.Linear(4, 4), nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.function(self, x)


def traced(function: Body) -> tuple[Cell, Program]:
    torch.manual_seed(0)
    cell = Cell(function)
    return cell, Program.trace(cell, (torch.zeros(1, 5, 4),), Origin("test"))


def step(cell: Cell, h: Tensor, x: Tensor) -> Tensor:
    return torch.tanh(cell.given(x) + cell.held(h))


def one(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    def combine(h: Tensor, now: Tensor) -> tuple[Tensor, Tensor]:
        h = step(cell, h, now)
        return h, h * 2

    h, y = scan(combine, torch.zeros(1, 4), x, dim=1)
    return h.clone(), y.clone()


def backwards(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    def combine(s: tuple[Tensor, Tensor], now: Tensor) -> tuple[tuple[Tensor, Tensor], Tensor]:
        a, b = s
        a = a * 0.5 + now
        b = b + a
        return (a, b), a - b

    start = torch.zeros(1, 4), torch.ones(1, 4)
    (_, b), y = scan(combine, start, x, dim=1, reverse=True)
    return b.clone(), y.clone()


def alike(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    return (mapped(lambda row: cell.given(row).relu(), x.transpose(0, 1)),)


@pytest.mark.parametrize("function", [one, backwards, alike])
def test_a_scan_is_its_steps(function: Body, generator: torch.Generator) -> None:
    cell, program = traced(function)
    after = rewrites.standard(program)
    assert all(isinstance(n.target, torch._ops.OpOverload) for n in g.float_ops(after.module()))
    x = torch.randn(1, 5, 4, generator=generator)
    with torch.no_grad():
        expected = cell(x)
    for found, wanted in zip(after.call(x), expected, strict=True):
        torch.testing.assert_close(found, wanted)


def test_the_weights_of_the_steps_are_there_once() -> None:
    cell, program = traced(one)
    held = sum(p.numel() for p in cell.parameters())
    assert program.parameters == held
    numbers = 4 + 5  # the state before the first step, and the factor of every step
    assert rewrites.standard(program).parameters == held + numbers


def loop(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    found = while_loop(
        lambda i, h: h.sum() < 4, lambda i, h: (i + 1, step(cell, h, h)), (torch.tensor(0), x)
    )
    return (found[1],)


def branch(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    return (cond(x.sum() > 0, lambda v: v + 1, lambda v: v - 1, (x,)),)


def prefix(cell: Cell, x: Tensor) -> tuple[Tensor, ...]:
    return (associative_scan(lambda a, b: a + b, x, dim=1, combine_mode="generic"),)


REFUSALS = {
    loop: "while_loop is an operator on graphs, which no target has",
    branch: "cond is an operator on graphs, which no target has",
    prefix: "a vmap (torch.func, or a generic associative_scan) was exported half open",
}
REMEDIES = {
    loop: "write a loop with a number of turns that is known, or a scan",
    branch: "compute both branches and choose with torch.where",
    prefix: "write the operation for a batch",
}


@pytest.mark.parametrize("function", REFUSALS)
def test_what_depends_on_values_is_refused_with_its_line(function: Body) -> None:
    _, program = traced(function)
    with pytest.raises(UnsupportedError) as refused:
        rewrites.standard(program)
    assert refused.value.what == REFUSALS[function]
    assert "test_unroll_scans.py:" in str(refused.value)
    assert f"try: {REMEDIES[function]}" in str(refused.value)
