"""Sums of products over named axes, as operators that a quantizer knows."""

from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program

ROUNDING = 64 * 2.0**-23
"""Of a sum of 64 numbers, as a share of the largest result: no test here adds up more."""


class Sums(nn.Module):
    """An einsum of values, and behind them constants."""

    def __init__(self, equation: str, *constants: Tensor) -> None:
        super().__init__()
        self.equation = equation
        self.constants = nn.ParameterList(constants)

    def forward(self, *x: Tensor) -> Tensor:
        return torch.einsum(self.equation, *x, *self.constants)


def opened(equation: str, values: tuple[Tensor, ...], constants: tuple[Tensor, ...]) -> list[str]:
    """The operators of the rewritten program, which gives what torch gives."""
    program = Program.trace(Sums(equation, *constants), values, Origin("test"))
    program = rewrites.standard(program)
    expected = torch.einsum(equation, *(t.double() for t in (*values, *constants)))
    (found,) = program.call(*values)
    assert found.shape == expected.shape
    scale = float(torch.einsum(equation, *(t.double().abs() for t in (*values, *constants))).max())
    assert float((found - expected).abs().max()) <= ROUNDING * max(scale, 1e-6)
    return [g.op_name(n) for n in g.float_ops(program.module())]


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(
    ("equation", "shape", "weight", "expected"),
    [
        ("bchw,oc->bohw", (1, 3, 4, 5), (6, 3), ["conv2d"]),
        ("bcn,oc->bon", (1, 3, 4), (6, 3), ["conv1d"]),
        ("bnc,co->bno", (1, 4, 3), (3, 6), ["linear"]),
        ("bnc,hcd->bnhd", (1, 4, 6), (2, 6, 3), ["linear", "reshape"]),
        ("bnhd,hdc->bnc", (1, 4, 2, 3), (2, 3, 6), ["reshape", "linear"]),
        ("bgcn,goc->bgon", (1, 2, 3, 4), (2, 5, 3), ["reshape", "conv1d", "reshape"]),
        ("bchw,c->bchw", (1, 3, 4, 5), (3,), ["mul"]),
        ("bchw,hk->bckw", (1, 3, 4, 5), (4, 6), ["transpose", "linear", "transpose"]),
        ("...c,oc->...o", (1, 2, 4, 3), (6, 3), ["linear"]),
    ],
)
def test_a_constant_is_a_weight(
    equation: str, shape: tuple[int, ...], weight: tuple[int, ...], expected: list[str]
) -> None:
    assert opened(equation, (drawn(*shape),), (drawn(*weight),)) == expected


@pytest.mark.parametrize(
    ("equation", "a", "b", "expected"),
    [
        ("bhid,bhjd->bhij", (1, 2, 4, 3), (1, 2, 5, 3), ["transpose", "matmul"]),
        ("bhij,bhjd->bhid", (1, 2, 4, 5), (1, 2, 5, 3), ["matmul"]),
        ("bhnd,bhne->bhde", (1, 2, 4, 3), (1, 2, 4, 5), ["transpose", "matmul"]),
        ("bi,bj->bij", (2, 3), (2, 4), ["reshape", "reshape", "mul"]),
        ("bchw,bc->bchw", (1, 3, 4, 5), (1, 3), ["reshape", "mul"]),
        ("bd,bd->b", (2, 3), (2, 3), ["reshape", "reshape", "matmul", "reshape"]),
    ],
)
def test_two_values_are_a_matrix_product(
    equation: str, a: tuple[int, ...], b: tuple[int, ...], expected: list[str]
) -> None:
    assert opened(equation, (drawn(*a), drawn(*b)), ()) == expected


@st.composite
def sums(draw: st.DrawFn) -> tuple[str, list[tuple[int, ...]]]:
    """An equation of two or three factors over any axes, some of one place, and shapes for it."""
    sizes = {x: draw(st.integers(1, 2)) for x in "abcdef"}
    axes = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4, unique=True)
    factors = draw(st.lists(axes, min_size=1, max_size=3))
    every = sorted({x for factor in factors for x in factor})
    wanted = draw(st.lists(st.sampled_from(every), max_size=5, unique=True))
    shapes = [tuple(draw(st.sampled_from([sizes[x], sizes[x], 1])) for x in f) for f in factors]
    return ",".join(map("".join, factors)) + "->" + "".join(wanted), shapes


@given(sums(), st.integers(0, 2))
@settings(max_examples=40, deadline=None)
def test_every_sum_is_opened(case: tuple[str, list[tuple[int, ...]]], constants: int) -> None:
    equation, shapes = case
    values = tuple(torch.randn(shape) for shape in shapes)
    # Of a single number there is no range, by which a rewrite's check measures differences.
    assume(torch.einsum(equation, *values).numel() > 1)
    given = max(len(values) - constants, 1)
    assert "einsum" not in opened(equation, values[:given], values[given:])


def test_a_diagonal_stays_what_it_is() -> None:
    assert "einsum" in opened("bii->b", (drawn(2, 3, 3),), ())


def test_an_implicit_result_is_in_the_order_of_letters() -> None:
    assert "einsum" not in opened("ba,cb", (drawn(2, 3), drawn(4, 2)), ())
