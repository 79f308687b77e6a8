"""Activations that are written out, in many forms."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgemix import graph as g
from edgemix import rewrites
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply

Form = Callable[[Tensor], Tensor]


class Call(nn.Module):
    def __init__(self, function: Form) -> None:
        super().__init__()
        self.function = function
        self.root = nn.Parameter(torch.tensor([math.sqrt(2.0)]))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def joined(function: Form) -> tuple[Program, list[str]]:
    program = Program.trace(Call(function), (torch.zeros(1, 400),), Origin("test"))
    for before in ("functionalize", "plain_views", "fold_constants", "join_activations"):
        program = apply(program, rewrites.load(before))
    return program, [g.op_name(n) for n in g.float_ops(program.module())]


FORMS: dict[str, tuple[Form, list[str]]] = {
    "gelu": (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), ["gelu"]),
    "gelu, a number of seven digits": (
        lambda x: x * 0.5 * (1.0 + torch.erf(x * 0.7071068)), ["gelu"],
    ),
    "gelu by erfc": (lambda x: x * torch.erfc(-x / math.sqrt(2)) / 2, ["gelu"]),
    "gelu by tanh": (
        lambda x: 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        ["gelu"],
    ),
    "gelu by tanh, factored": (
        lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608 * x * (1 + 0.044715 * x * x))), ["gelu"],
    ),
    "gelu by sigmoid": (
        lambda x: x * torch.sigmoid(2 * math.sqrt(2 / math.pi) * (x + 0.044715 * x.pow(3))),
        ["gelu"],
    ),
    "silu": (lambda x: x * torch.sigmoid(x), ["silu"]),
    "silu as a quotient": (lambda x: x / (1 + torch.exp(-x)), ["silu"]),
    "silu in place": (lambda x: x.clone().mul_(x.sigmoid()), ["silu"]),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), ["mul", "silu", "mul"]),
    "sigmoid": (lambda x: 1 / (1 + torch.exp(-x)), ["sigmoid"]),
    "hard sigmoid": (lambda x: F.relu6(x + 3) / 6, ["hardsigmoid"]),
    "hard swish": (lambda x: x * F.relu6(x + 3) * (1 / 6), ["hardswish"]),
    "hard swish, clamped": (lambda x: x * (x + 3).clamp(0, 6) / 6, ["hardswish"]),
    "hard swish by hard sigmoid": (lambda x: x * F.hardsigmoid(x), ["hardswish"]),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), ["mish"]),
    "mish in full": (lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), ["mish"]),
    "softplus": (lambda x: torch.log1p(torch.exp(x)), ["softplus"]),
    "softplus, sharper": (lambda x: torch.log(1 + torch.exp(3 * x)) / 3, ["softplus"]),
    "elu": (lambda x: torch.where(x > 0, x, torch.exp(x) - 1), ["elu"]),
    "elu of a third": (lambda x: x.relu() + 0.3 * torch.expm1(x.clamp(max=0)), ["elu"]),
    "leaky": (lambda x: torch.where(x >= 0, x, 0.1 * x), ["leaky_relu"]),
    "leaky, a maximum": (lambda x: torch.maximum(x, 0.2 * x), ["leaky_relu"]),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_one_operator(form: str) -> None:
    function, expected = FORMS[form]
    program, names = joined(function)
    assert names == expected
    x = torch.linspace(-15, 15, 400)[None]
    worst = (program.call(x)[0] - function(x.double())).abs().max()
    assert worst <= 30 * 2.0**-23 * 15


def test_a_learned_number_is_one_too() -> None:
    class Learned(Call):
        def forward(self, x: Tensor) -> Tensor:
            return 0.5 * x * (1 + torch.erf(x / self.root))

    program = Program.trace(Learned(lambda x: x), (torch.zeros(1, 4),), Origin("test"))
    names = [g.op_name(n) for n in g.float_ops(rewrites.standard(program).module())]
    assert names == ["gelu"]


def test_the_factors_of_a_quick_gelu_go_into_weights() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.into, self.out = nn.Linear(4, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.into(x)
            return self.out(x * torch.sigmoid(1.702 * x))

    program = Program.trace(Block(), (torch.zeros(1, 4),), Origin("test"))
    names = [g.op_name(n) for n in g.float_ops(rewrites.standard(program).module())]
    assert names == ["linear", "silu", "linear"]


OTHERS: dict[str, Form] = {
    "near a gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 1.41)),
    "near a silu": lambda x: x * torch.sigmoid(x + 0.001),
    "of two values": lambda x: x * torch.sigmoid(x.flip(1)),
    "a gate that is read twice": lambda x: (s := torch.sigmoid(x)) * x + s.flip(1),
    "one operator": lambda x: F.silu(x),
    "StarReLU": lambda x: 0.9 * x.relu().square() - 0.4,
    "of a vector for every channel": lambda x: x * torch.sigmoid(x * torch.linspace(1, 2, 400)),
}


@pytest.mark.parametrize("other", OTHERS)
def test_others_stay_as_they_are(other: str) -> None:
    program, _ = joined(OTHERS[other])
    assert "join_activations" not in [s.name for s in program.history]
