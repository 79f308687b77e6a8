"""Recurrent mixers by what defines them: their steps, their equations, what they can and cannot see."""

from __future__ import annotations

from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix.models import tiny
from edgemix.models.recurrent.cumulative_norm import CumulativeNorm
from edgemix.models.recurrent.delta_product import DeltaProduct
from edgemix.models.recurrent.fsmn import DeepFSMNBlock, MemoryTaps
from edgemix.models.recurrent.linear_attention import DeltaNet, GatedLinearAttention
from edgemix.models.recurrent.s4d import DiagonalStateSpace
from edgemix.models.recurrent.tcn import TCN
from edgemix.models.recurrent.xlstm import MLSTM, SLSTM
from edgemix.streaming.protocol import Stepwise, by_steps, held

M = TypeVar("M", bound=nn.Module)

pytestmark = pytest.mark.usefixtures("doubles")


@pytest.mark.parametrize(
    "factory",
    [
        tiny.gated_linear_attention, tiny.delta_net, tiny.delta_product, tiny.tcn,
        tiny.s4d, tiny.fsmn, tiny.deep_fsmn,
    ],
    ids=lambda f: f.__name__,
)  # fmt: skip
def test_four_hundred_steps_are_the_sequence(factory: tiny.Factory) -> None:
    module = _drawn(factory()[0])
    assert isinstance(module, Stepwise)
    x = torch.randn(2, 400, 4)
    stepped, _ = by_steps(module, x)
    whole = module(x)
    assert float(whole.std()) > 0.01
    torch.testing.assert_close(stepped, whole)


def test_cumulative_norms_step_as_they_see_a_sequence() -> None:
    model = _drawn(TCN(3, 2, dim=4, hidden=5, depth=2, cumulative=True))
    x = torch.randn(2, 400, 3)
    torch.testing.assert_close(by_steps(model, x)[0], model(x))


def test_gated_attention_that_forgets_nothing_is_linear_attention_without_a_normalizer() -> None:
    layer = _drawn(GatedLinearAttention(4, heads=1))
    layer.forget[1].bias.fill_(1e3)
    x = torch.randn(1, 12, 4)
    q, k, v = layer.qkv(x).chunk(3, -1)
    read = torch.tril(q @ k.mT) @ v / 2
    expected = layer.proj(layer.norm(read) * functional.silu(layer.gate(x)))
    torch.testing.assert_close(layer(x), expected)


def test_the_delta_rule_stores_values_under_orthonormal_keys_and_replaces_them() -> None:
    layer = DeltaNet(4, heads=1).requires_grad_(False)
    unit, values = torch.eye(4), torch.randn(4, 4)
    # A step writes under its own key and asks for that of the step before.
    layer.qkv.weight.copy_(torch.cat([1e6 * unit.roll(-1, 0), 1e6 * unit, values.T]))
    layer.rate.weight.zero_()
    layer.rate.bias.fill_(1e3)
    layer.proj.weight.copy_(unit)
    layer.proj.bias.zero_()
    x = torch.cat([unit, 3 * unit])[None]
    expected = torch.cat([torch.zeros(1, 4), values, 3 * values[:3]])
    torch.testing.assert_close(layer(x)[0], expected)


def test_one_write_that_reflects_nothing_is_the_delta_rule() -> None:
    product, net = DeltaProduct(6, heads=2, writes=1, peak=1.0), _drawn(DeltaNet(6, heads=2))
    product.load_state_dict(net.state_dict())
    x = torch.randn(2, 20, 6)
    torch.testing.assert_close(product(x), net(x))


def test_the_transition_of_several_writes_is_a_product_of_householder_matrices() -> None:
    layer = _drawn(DeltaProduct(4, heads=1, writes=3))
    x = torch.randn(1, 10, 4)
    q, *pairs = layer.qkv(x).chunk(7, -1)
    rates = 2 * torch.sigmoid(layer.rate(x))
    memory, expected = torch.zeros(4, 4), []
    for t in range(10):
        for j in range(3):
            key, rate = _unit(pairs[j][0, t]), rates[0, t, j]
            memory = (torch.eye(4) - rate * torch.outer(key, key)) @ memory
            memory = memory + rate * torch.outer(key, pairs[3 + j][0, t])
        expected.append(_unit(q[0, t]) @ memory)
    torch.testing.assert_close(layer(x)[0], layer.proj(torch.stack(expected)))


@pytest.mark.parametrize(("growth", "repeats", "field"), [(2, 2, 29), (10, 1, 223)])
def test_a_tcn_sees_its_field_and_nothing_ahead(growth: int, repeats: int, field: int) -> None:
    model = TCN(3, 2, dim=4, hidden=5, depth=3, repeats=repeats, growth=growth)
    x = torch.randn(1, field + 20, 3)
    changed = x.clone()
    changed[0, 10, 0] += 1.0  # of all channels alike a norm sees nothing
    differs = (_drawn(model)(x) - model(changed))[0].abs().amax(1) > 0
    at = torch.nonzero(differs)[:, 0]
    assert (int(at[0]), int(at[-1])) == (10, 10 + field - 1)


def test_cumulative_norms_see_all_that_came_and_nothing_ahead() -> None:
    model = _drawn(TCN(3, 2, dim=4, hidden=5, depth=2, cumulative=True))
    x = torch.randn(1, 40, 3)
    changed = x.clone()
    changed[0, 10] += 1.0
    differs = (model(x) - model(changed))[0].abs().amax(1) > 0
    assert not differs[:10].any() and differs[10:].all()


def test_a_cumulative_norm_has_the_mean_and_variance_of_all_so_far() -> None:
    norm = _drawn(CumulativeNorm(3))
    x = 5 + torch.randn(1, 50, 3)
    for t in (0, 1, 49):
        seen = x[0, : t + 1]
        scaled = (x[0, t] - seen.mean()) / torch.sqrt(seen.var(correction=0) + norm.eps)
        torch.testing.assert_close(norm(x)[0, t], scaled * norm.weight + norm.bias)
    _, state = by_steps(norm, x)
    torch.testing.assert_close(held(state, "variance")[0, 0], x.var(correction=0))
    torch.testing.assert_close(held(state, "share")[0, 0], torch.tensor(1 / 51))


def test_a_state_space_solves_its_equation_for_an_input_that_is_held() -> None:
    space = _drawn(DiagonalStateSpace(3, 4, shortest=0.1, longest=0.5))
    y, _ = by_steps(space, torch.ones(1, 30, 3))
    a = torch.complex(-torch.exp(space.log_decay), space.frequency)
    c = torch.complex(space.read_real, space.read_imag)
    for t in (1, 2, 30):
        h = (torch.exp(t * torch.exp(space.log_step) * a) - 1) / a
        torch.testing.assert_close(y[0, t - 1], 2 * (c * h).sum(1).real + space.skip)


def test_a_state_space_starts_as_s4d_lin() -> None:
    space = DiagonalStateSpace(2, 3)
    assert torch.exp(space.log_step)[:, 0].tolist() == pytest.approx([1e-3, 1e-1])
    assert space.frequency[1].tolist() == pytest.approx([0, torch.pi, 2 * torch.pi])
    assert torch.allclose(torch.exp(space.log_decay), torch.tensor(0.5))


def test_the_taps_of_an_fsmn_lie_a_stride_apart_and_add_to_the_present() -> None:
    memory = _drawn(MemoryTaps(2, taps=3, stride=4))
    impulse = torch.zeros(1, 12, 2)
    impulse[0, 1] = 1.0
    expected = impulse.clone()
    for i in range(3):
        expected[0, 1 + 4 * i] += memory.taps.conv.weight[:, 0, 2 - i]
    torch.testing.assert_close(memory(impulse), expected)


def test_a_deep_fsmn_without_taps_is_a_residual_layer() -> None:
    block = _drawn(DeepFSMNBlock(3, 5, taps=4))
    block.memory.taps.conv.weight.zero_()
    x = torch.randn(2, 9, 3)
    torch.testing.assert_close(block(x), x + block.project(torch.relu(block.linear(x))))


def test_the_stabilizer_of_an_slstm_changes_nothing() -> None:
    cell = _drawn(SLSTM(3, 4))
    x = torch.randn(1, 40, 3)
    h, c, n, expected = torch.zeros(4), torch.zeros(4), torch.ones(4), []
    for t in range(40):
        i, f, z, o = cell.gates(torch.cat([x[0, t], h])).chunk(4)
        c = torch.sigmoid(f) * c + torch.exp(i) * torch.tanh(z)
        n = torch.sigmoid(f) * n + torch.exp(i)
        h = torch.sigmoid(o) * c / n
        expected.append(h)
    torch.testing.assert_close(cell(x)[0], torch.stack(expected))


def test_the_memory_of_an_mlstm_is_the_plain_sum_scaled_by_its_peak() -> None:
    cell = _drawn(MLSTM(3))
    x = torch.randn(1, 40, 3)
    q, k, v = cell.qkv(x)[0].chunk(3, -1)
    i, f = cell.gates(x)[0].chunk(2, -1)
    memory, keys = torch.zeros(3, 3), torch.zeros(3)
    for t in range(40):
        memory = torch.sigmoid(f[t]) * memory + torch.exp(i[t]) * torch.outer(v[t], k[t]) / 3**0.5
        keys = torch.sigmoid(f[t]) * keys + torch.exp(i[t]) * k[t] / 3**0.5
    y, state = by_steps(cell, x)
    scale = torch.exp(held(state, "peak"))[0]
    torch.testing.assert_close(held(state, "memory")[0] * scale, memory)
    torch.testing.assert_close(held(state, "normalizer")[0] * scale, keys)
    read = memory @ q[-1] / torch.maximum((keys @ q[-1]).abs(), scale)
    torch.testing.assert_close(y[0, -1], torch.sigmoid(cell.open(x[0, -1])) * read)


def _drawn(module: M) -> M:
    """With every parameter drawn, for what starts as zeros and ones hides mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape) * 0.7)
    return module.requires_grad_(False)


def _unit(x: Tensor) -> Tensor:
    """As keys and queries are made unit: behind SiLU, the shortest of them less than one."""
    x = functional.silu(x)
    return x / torch.sqrt(x @ x + 1e-2)
