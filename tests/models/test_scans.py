"""Selective scans and what is made of them: MambaMixer's mixers and models, and Hydra."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix import rewrites
from edgemix.errors import InputError
from edgemix.models.hydra import HydraText, Layers
from edgemix.models.mamba_mixer import TSM2, Level, MambaMixer, ViM2
from edgemix.models.mixers.selective import (
    BOTH,
    SelectiveChannels,
    SelectiveColumns,
    SelectiveRows,
    SelectiveTokens,
)
from edgemix.models.presets import hydra, mamba_mixer
from edgemix.models.presets.base import Factory
from edgemix.models.recurrent.hydra import Hydra
from edgemix.models.recurrent.mamba import Mamba
from edgemix.models.recurrent.selective_scan import SelectiveScan, linear_recurrence
from edgemix.program import Origin, Program

M = TypeVar("M", bound=nn.Module)


same = pytest.mark.usefixtures("doubles")


@pytest.mark.parametrize("tiny", [hydra.tiny, mamba_mixer.tiny, mamba_mixer.tiny_series])
def test_a_tiny_model_is_small_and_its_program_gives_what_it_gives(
    tiny: Callable[[], Factory],
) -> None:
    module, (example,) = tiny()
    assert sum(p.numel() for p in module.parameters()) < 5000
    program = rewrites.standard(Program.trace(module, (example,), Origin("tiny")))
    x = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x)
    assert float(expected.std(0).min()) > 1e-3  # it looks at its input
    torch.testing.assert_close(program.run(x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("time", [1, 2, 3, 7, 8, 13])
@same
def test_a_recurrence_by_doubling_is_the_loop(time: int) -> None:
    decay, drive = torch.rand(2, time, 3, 4), torch.randn(2, time, 3, 4)
    h, expected = torch.zeros(2, 3, 4), []
    for t in range(time):
        h = decay[:, t] * h + drive[:, t]
        expected.append(h)
    for axis in (1, -3):
        found = linear_recurrence(decay, drive, axis)
        torch.testing.assert_close(found, torch.stack(expected, 1))


@same
def test_a_selective_scan_is_its_equations() -> None:
    scan, x = _drawn(SelectiveScan(3, states=2, rank=1)), torch.randn(1, 5, 3)
    w_rate, w_b, w_c = scan.select.weight.split([1, 2, 2])
    for d in range(3):
        h = torch.zeros(2)
        for t in range(5):
            v = x[0, t]
            step = functional.softplus(scan.rate.weight[d] @ (w_rate @ v) + scan.rate.bias[d])
            h = torch.exp(-step * scan.log_decay[d].exp()) * h + step * (w_b @ v) * v[d]
            y = (w_c @ v) @ h + scan.skip[d] * v[d]
            torch.testing.assert_close(scan(x)[0, t, d], y)


@same
def test_along_one_row_and_forward_it_is_mamba() -> None:
    rows, mamba = _drawn(SelectiveRows(4, states=2, kernel=3)), Mamba(4, states=2, kernel=3)
    held = rows.scans.scans[0]
    mamba.enter.weight.data = rows.enter.weight[:, :, 0, 0]
    mamba.leave.weight.data = rows.leave.weight[:, :, 0, 0]
    mamba.conv.conv.weight.data, mamba.conv.conv.bias = held.conv.weight[:, :, 0], held.conv.bias
    mamba.scan = held.scan
    x = torch.randn(2, 7, 4)
    found = rows(x.transpose(1, 2)[:, :, None])[:, :, 0].transpose(1, 2)
    torch.testing.assert_close(found, mamba(x))


@same
def test_forward_looks_back_and_both_ways_look_everywhere() -> None:
    x = torch.randn(1, 4, 2, 6)
    other = x.clone()
    other[:, :, 0, 3] += 1
    for ways, first in ((("forward",), 3), (BOTH, 0)):
        rows = _drawn(SelectiveRows(4, ways=ways, states=2))
        moved = (rows(other) - rows(x)).abs().amax((0, 1))
        assert torch.equal(moved[0] > 0, torch.arange(6) >= first)
        assert float(moved[1].max()) == 0  # no row sees another


@same
def test_turning_rows_round_exchanges_the_ways() -> None:
    rows, turned = (SelectiveRows(4, ways=BOTH, states=2) for _ in "12")
    turned.load_state_dict(_drawn(rows).state_dict())
    turned.scans.scans = nn.ModuleList(reversed(turned.scans.scans))
    x = torch.randn(1, 4, 2, 6)
    torch.testing.assert_close(turned(x.flip(3)), rows(x).flip(3))


@same
def test_columns_are_rows_of_the_transposed_map() -> None:
    rows, columns = SelectiveRows(4, ways=BOTH, states=2), SelectiveColumns(4, ways=BOTH, states=2)
    columns.load_state_dict(_drawn(rows).state_dict())
    x = torch.randn(1, 4, 3, 5)
    torch.testing.assert_close(columns(x), rows(x.transpose(2, 3)).transpose(2, 3))


@same
def test_four_scans_follow_the_maps_symmetries() -> None:
    """Each turn of the map exchanges the ways whose parameters it exchanges."""
    x = torch.randn(1, 4, 3, 5)
    for change, order in ((_transposed, (2, 3, 0, 1)), (_turned, (1, 0, 3, 2))):
        tokens, other = (SelectiveTokens(4, states=2) for _ in "12")
        other.load_state_dict(_drawn(tokens).state_dict())
        other.scans = nn.ModuleList(tokens.scans[i] for i in order)
        other.conv.weight.data = change(tokens.conv.weight.data)
        torch.testing.assert_close(other(change(x)), change(tokens(x)))


@same
def test_the_channel_mixer_mixes_all_channels_of_one_position() -> None:
    channels, x = _drawn(SelectiveChannels(4, width=6, states=2)), torch.randn(1, 4, 3, 3)
    other = x.clone()
    other[:, 2, 1, 1] += 1
    moved = (channels(other) - channels(x)).abs()[0]
    assert bool((moved[:, 1, 1] > 0).all())
    moved[:, 1, 1] = 0
    assert float(moved.max()) == 0
    order = torch.randperm(9)
    mixed = channels(x.flatten(2)[:, :, order].reshape(x.shape))
    torch.testing.assert_close(mixed.flatten(2), channels(x).flatten(2)[:, :, order])


@same
def test_the_channel_mixer_selects_by_channel() -> None:
    """By the equations, channel after channel and both ways, at one position."""
    mixer, x = _drawn(SelectiveChannels(3, width=5, states=2, kernel=2)), torch.randn(1, 3, 1, 1)
    v, z = mixer.enter(x)[0, :, 0, 0].split(5)
    total = torch.zeros(5)
    for way, scan in zip((1, -1), mixer.scans.scans, strict=True):
        steps = v[::way] if way == 1 else v.flip(0)
        first, second = scan.conv.weight.flatten()
        past = torch.cat([torch.zeros(1), steps[:-1]])
        u = functional.silu(first * past + second * steps + scan.conv.bias)
        y = scan.scan(u[None, :, None])[0, :, 0]
        total = total + (y if way == 1 else y.flip(0))
    expected = mixer.leave((total * functional.silu(z))[None, :, None, None])
    torch.testing.assert_close(mixer(x), expected)


@same
def test_averages_of_earlier_features_are_equations_19_and_20() -> None:
    tokens = [nn.Conv2d(2, 2, 1) for _ in range(3)]
    channels = [nn.Conv2d(2, 2, 1) for _ in range(3)]
    block, x = MambaMixer(tokens, channels), torch.randn(1, 2, 3, 3)
    chain = x
    for t, c in zip(tokens, channels, strict=True):
        chain = c(t(chain))
    torch.testing.assert_close(block(x), chain)
    scalars = [*block.alpha, *block.beta, *block.theta, *block.gamma]
    assert sum(s.numel() for s in scalars) == 3 * (2 * 3 + 3)
    for s in scalars:
        nn.init.normal_(s)
    y_t, y_c = [x], [x]
    for i in range(3):
        a, b, t, g = (w[i] for w in (block.alpha, block.beta, block.theta, block.gamma))
        y_t.append(tokens[i](sum(a[j] * y_t[j] + b[j] * y_c[j] for j in range(i + 1))))
        mixed = sum(t[j] * y_t[j] for j in range(i + 2)) + sum(g[j] * y_c[j] for j in range(i + 1))
        y_c.append(channels[i](mixed))
    torch.testing.assert_close(block(x), y_c[-1])


@same
def test_vim2_halves_between_levels() -> None:
    model = ViM2([Level(4, 8, 1), Level(6, 12, 1), Level(8, 8, 1)], classes=3, states=2)
    x = torch.randn(1, 3, 32, 32)
    sizes = [x.shape[2:] for x in _after(model.stages, x, MambaMixer)]
    assert sizes == [(8, 8), (4, 4), (2, 2)]
    assert model(x).shape == (1, 3)


@same
def test_tsm2_forecasts_each_variate_from_all() -> None:
    model, x = _drawn(TSM2(16, 4, patch=4, dim=4, depth=2, states=2)), torch.randn(1, 16, 3)
    other = x.clone()
    other[:, :, 0] += torch.randn(16)
    assert model(x).shape == (1, 4, 3)
    assert bool(((model(other) - model(x)).abs() > 0).all())


@same
def test_hydra_is_the_quasiseparable_matrix_of_its_parts() -> None:
    """Both ways' semiseparable matrices, multiplied out step by step, shifted, one turned round."""
    time, heads, states = 6, 2, 3
    layer = _drawn(Hydra(4, states=states, kernel=3, size=4))
    parts = [torch.randn(1, time, states) for _ in range(4)]
    rate = torch.randn(1, time, 2 * heads)
    found = layer.matrix(parts, rate)[0]
    step = functional.softplus(rate[0].unflatten(-1, (2, heads)) + layer.rate)
    b, c, b_after, c_after = (p[0] for p in parts)
    for h in range(heads):
        forth = _shifted(_semiseparable(b, c, step[:, 0, h], layer.log_decay[h]))
        turned = (b_after.flip(0), c_after.flip(0), step[:, 1, h].flip(0))
        back = _shifted(_semiseparable(*turned, layer.log_decay[h])).flip(0, 1)
        torch.testing.assert_close(found[h], forth + back)
        assert float(found[h].diagonal().abs().max()) == 0


@same
def test_hydra_is_two_shifted_scans_and_a_diagonal() -> None:
    """The whole layer, from loops over a state."""
    layer, u = _drawn(Hydra(4, states=3, kernel=3, size=4)), torch.randn(1, 5, 4)
    z, mixed, rate = layer.enter(u)[0].split(layer.parts, -1)
    x, b, c, b_after, c_after = functional.silu(layer.conv(mixed.T[None])[0].T).split(
        [8, 3, 3, 3, 3], -1
    )
    y = x * layer.skip(x).repeat_interleave(4, -1)
    for way, first, second, steps in ((1, b, c, rate[:, :2]), (-1, b_after, c_after, rate[:, 2:])):
        state, order = torch.zeros(2, 4, 3), list(range(5))[::way]
        step = functional.softplus(steps + layer.rate)
        for now, then in pairwise(order):
            decay = torch.exp(-step[now] * layer.log_decay.exp())
            value = (step[now, :, None] * x[now].reshape(2, 4))[..., None]
            state = decay[:, None, None] * state + value * first[now]
            y[then] = y[then] + (state @ second[now]).flatten()
    expected = layer.leave(layer.norm(y) * functional.silu(z))
    torch.testing.assert_close(layer(u)[0], expected)


@same
def test_turning_hydras_sequence_exchanges_its_ways() -> None:
    layer, turned = (Hydra(4, states=3, kernel=3, size=4) for _ in "12")
    turned.load_state_dict(_drawn(layer).state_dict())
    x, b, c, b_after, c_after = torch.arange(8 + 4 * 3).split([8, 3, 3, 3, 3])
    inner = torch.cat([x, b_after, c_after, b, c])
    rates = torch.tensor([2, 3, 0, 1])
    order = torch.cat([torch.arange(8), 8 + inner, 8 + 20 + rates])
    turned.enter.weight.data = layer.enter.weight.data[order]
    turned.conv.weight.data = layer.conv.weight.data[inner].flip(-1)
    turned.conv.bias.data = layer.conv.bias.data[inner]
    u = torch.randn(1, 6, 4)
    torch.testing.assert_close(turned(u.flip(1)), layer(u).flip(1))


@same
def test_hydra_reads_words_with_the_vectors_it_was_given() -> None:
    model = HydraText(Layers(4, 1, {"states": 3, "kernel": 3, "size": 4}), vocabulary=7)
    words = torch.tensor([[1, 5, 2, 0, 6]])
    assert model(model.words[words]).shape == (1, 5, 7)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Hydra(4, size=3), "8 channels do not divide into heads of 3"),
        (lambda: Hydra(4, size=4, kernel=4), "a kernel of 4 steps has no middle"),
        (lambda: MambaMixer([nn.Identity()], []), "1 token mixers do not alternate with 0"),
        (lambda: TSM2(16, 4, patch=5, dim=4, depth=1), "16 steps do not divide into patches of 5"),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def _drawn(module: M) -> M:
    """With every parameter drawn, for what starts as zeros and ones hides mistakes."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.7)
    return module.requires_grad_(False)


def _transposed(x: Tensor) -> Tensor:
    return x.transpose(2, 3)


def _turned(x: Tensor) -> Tensor:
    return x.flip(2, 3)


def _semiseparable(b: Tensor, c: Tensor, step: Tensor, log_decay: Tensor) -> Tensor:
    matrix = torch.zeros(len(b), len(b))
    for i in range(len(b)):
        for j in range(i + 1):
            decay = torch.exp(-step[j + 1 : i + 1] * log_decay.exp()).prod()
            matrix[i, j] = (c[i] @ b[j]) * decay * step[j]
    return matrix


def _shifted(matrix: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, matrix.shape[1]), matrix[:-1]])


def _after(stages: nn.Sequential, x: Tensor, kind: type[nn.Module]) -> list[Tensor]:
    found = []
    for stage in stages:
        x = stage(x)
        if isinstance(stage, kind):
            found.append(x)
    return found
