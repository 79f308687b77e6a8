"""Leaks: split off what stays, and rounded to shifts where little changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.leaks import shift_leaks
from edgemix.quantize.recipe import Recipe
from edgemix.streaming.protocol import State, Stepwise, held, zeros
from edgemix.streaming.trace import step_program


class Leaky(Stepwise):
    """v' = β v + x for three β."""

    def __init__(self, *betas: float) -> None:
        super().__init__()
        self.register_buffer("beta", torch.tensor(betas))

    def initial_state(self, batch: int = 1) -> State:
        return {"v": zeros(batch, len(self.beta))}

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        v = held(state, "v") * self.beta + x
        return v, {"v": v}


def traced(*betas: float) -> Program:
    program = step_program(Leaky(*betas), torch.zeros(1, 8, len(betas)), Origin("test"))
    return rewrites.standard(program)


def leaks(program: Program) -> Tensor:
    module = program.module()
    (constant,) = [
        a for n in module.graph.nodes if n.target is g.aten.mul.Tensor
        for a in n.args if isinstance(a, torch.fx.Node) and a.op == "get_attr"
    ]  # fmt: skip
    return g.constant(module, constant)


def test_what_is_lost_is_what_is_multiplied() -> None:
    program = traced(0.99, 0.9, 0.75)
    torch.testing.assert_close(leaks(program), torch.tensor([0.01, 0.1, 0.25]))
    assert "split_leak" in [s.name for s in program.history]


def test_a_gain_or_a_fast_leak_stays_as_it_is() -> None:
    for betas in ((1.5, 0.9), (0.25, 0.9)):
        assert "split_leak" not in [s.name for s in traced(*betas).history]


@pytest.mark.parametrize("beta", [0.99, 0.97, 0.9])
def test_eight_bits_keep_the_time_constant(beta: float) -> None:
    recipe = Recipe.load("fixed8")
    program = traced(beta)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 1000, 1, generator=generator) * 0.1 + 0.05
    found = quantize(program, calibrate(program, [x]), recipe)
    real, quantized = program.rollout(x).states[0], found.rollout(x).states[0]
    # β itself in eight bits would settle at a level that is off by up to 40 %.
    assert abs(float(quantized[:, 500:].mean() / real[:, 500:].mean()) - 1) < 0.02


def test_near_leaks_become_shifts_and_far_ones_do_not() -> None:
    program = traced(0.94, 0.9, 0.5000001)  # 0.06 is near 1/16, 0.1 is far from 1/8
    found = shift_leaks(program, 0.05)
    torch.testing.assert_close(leaks(found), torch.tensor([1 / 16, 0.1, 0.5]))
    step = found.history[-1]
    assert (step.name, step.options["rounded"], step.options["leaks"]) == ("shift leaks", 2, 3)
    assert shift_leaks(program, 0.0) is program


def test_a_recipe_may_ask_for_shifts() -> None:
    assert Recipe.load("fixed8").shift_leaks == 0.0
    with pytest.raises(ValueError, match="less than 0.5"):
        Recipe(name="x", shift_leaks=0.6)
