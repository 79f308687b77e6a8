"""Palettes: few values, the nearest ones, and every target computes with them."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Program
from edgemix.quantize.palette import nearest_of_few
from edgemix.quantize.recipe import Recipe


@given(st.integers(1, 8), st.integers(1, 400), st.integers(0, 1000))
def test_a_palette_has_few_values_and_takes_the_nearest(bits: int, size: int, seed: int) -> None:
    values = torch.randn(size, generator=torch.Generator().manual_seed(seed))
    found = nearest_of_few(values, bits)
    table = torch.unique(found)
    assert len(table) <= 2**bits
    assert torch.equal(table.half().float(), table)
    nearest = (values[:, None] - table[None]).abs().min(1).values
    assert torch.equal((values - found).abs(), nearest)


def test_more_bits_are_nearer() -> None:
    values = torch.randn(5000, generator=torch.Generator().manual_seed(0))
    errors = [float((values - nearest_of_few(values, bits)).square().mean()) for bits in (2, 4, 6)]
    # Of a normal distribution, Lloyd and Max: 0.1175 and 0.0095 (Max, "Quantizing for minimum
    # distortion", IRE Transactions on Information Theory, 1960, table I).
    assert errors[0] == pytest.approx(0.1175, rel=0.05)
    assert errors[1] == pytest.approx(0.0095, rel=0.15)
    assert errors[2] < errors[1] / 10


def test_few_values_and_equal_ones_stay() -> None:
    for values in (torch.zeros(3, 4), torch.tensor([0.5, -2.0, 0.5]), torch.zeros(0)):
        assert torch.equal(nearest_of_few(values, 2), values)


def test_a_program_computes_with_its_palettes(quantize_by: Callable[..., Program]) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)).eval()
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    program = quantize_by(net, x, "palette2")
    module = program.module()
    weights: list[Tensor] = [
        g.constant(module, n.args[1]) for n in module.graph.nodes if n.target in g.LINEAR
    ]
    assert [len(torch.unique(w)) for w in weights] == [4, 4]
    assert program.palettes
    assert not program.quantized
    assert not torch.equal(program.run(x)[0], net(x))


def test_a_palette_is_for_whole_weights_of_eight_bits_at_most() -> None:
    with pytest.raises(ValueError, match="a palette is one for each tensor"):
        Recipe.model_validate({"name": "x", "weights": {"palette": True, "bits": 9}})
    with pytest.raises(ValueError, match="palettes are for weights"):
        Recipe.model_validate({"name": "x", "activations": {"palette": True}})
    with pytest.raises(ValueError, match="where values are quantized, weights are, too"):
        Recipe.model_validate({"name": "x", "weights": False})
    with pytest.raises(InputError, match="there is no recipe palette3"):
        Recipe.load("palette3")
