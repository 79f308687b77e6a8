"""Mixers against their equations, written out place by place."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import InputError
from edgemix.models import tiny_maps
from edgemix.models.lively import enliven
from edgemix.models.mixers.aggregated_attention import AggregatedAttention
from edgemix.models.mixers.conv_glu import ConvGlu
from edgemix.models.mixers.dual_tokens import DualTokens
from edgemix.models.mixers.scattering import DualTree, Scattering
from edgemix.models.mixers.spectrum import DynamicSpectrum
from edgemix.models.mixers.strip_attention import StripAttention

_HIGH, _WIDE = 4, 6
_PLACES = [(i, j) for i in range(_HIGH) for j in range(_WIDE)]


@pytest.fixture
def x(doubles: None) -> Tensor:
    return torch.randn(2, 4, _HIGH, _WIDE)


def awake(module: nn.Module) -> nn.Module:
    enliven(module)
    return module.double()


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def at(conv: nn.Conv2d, vector: Tensor) -> Tensor:
    """A 1×1 convolution of one position [c]."""
    assert conv.bias is not None
    return conv.weight[:, :, 0, 0] @ vector + conv.bias


def around(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A depthwise convolution of 3×3 on a map [c, h, w]."""
    assert conv.bias is not None
    found = conv.bias[:, None, None].expand_as(x).clone()
    _, high, wide = x.shape
    for i, j in ((i, j) for i in range(high) for j in range(wide)):
        for di, dj in ((di, dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)):
            if 0 <= i + di < high and 0 <= j + dj < wide:
                found[:, i, j] += conv.weight[:, 0, 1 + di, 1 + dj] * x[:, i + di, j + dj]
    return found


@torch.no_grad()
def test_a_convolutional_gate_sees_its_neighbours_and_the_value_none(x: Tensor) -> None:
    module = awake(ConvGlu(4))
    assert isinstance(module, ConvGlu)
    hidden = 8  # two thirds of 3 · 4
    for sample, found in zip(x, module(x), strict=True):
        both = torch.stack([at(module.expand, sample[:, i, j]) for i, j in _PLACES], 1)
        gate, value = both.reshape(2, hidden, _HIGH, _WIDE)
        gate = functional.gelu(around(module.look[0], gate))
        for i, j in _PLACES:
            near(found[:, i, j], at(module.contract, gate[:, i, j] * value[:, i, j]))


@torch.no_grad()
def test_strips_compare_one_number_of_a_head(x: Tensor) -> None:
    module = awake(StripAttention(4, heads=2, stride=2))
    assert isinstance(module, StripAttention)
    for sample, found in zip(x, module(x), strict=True):
        few = []
        for i, j in ((i, j) for i in range(0, _HIGH, 2) for j in range(0, _WIDE, 2)):
            cell = (module.shrink.weight[:, 0] * sample[:, i : i + 2, j : j + 2]).sum((1, 2))
            few.append(cell + module.shrink.bias)
        keys, values = ([at(m, p) for p in few] for m in (module.keys, module.values))
        for i, j in _PLACES:
            q, heads = at(module.queries, sample[:, i, j]), []
            for head in range(2):
                weights = torch.stack([q[head] * k[head] for k in keys]).softmax(0)
                own = slice(2 * head, 2 * head + 2)
                heads.append(sum(w * v[own] for w, v in zip(weights, values, strict=True)))
            near(found[:, i, j], at(module.proj, torch.cat(heads)))


@torch.no_grad()
def test_local_tokens_add_what_global_tokens_say(x: Tensor) -> None:
    module = awake(DualTokens(4, _HIGH, _WIDE, heads=2, share=0.25))
    assert isinstance(module, DualTokens)
    look, mlp = module.local
    for sample, found in zip(x, module(x), strict=True):
        local, looked = sample.clone(), around(look, sample)
        for i, j in _PLACES:
            hidden = functional.gelu(at(mlp.expand, looked[:, i, j]))
            local[:, i, j] += at(mlp.contract, hidden)
        small = local.reshape(4, _HIGH // 2, 2, _WIDE // 2, 2).mean((2, 4))
        tokens = 0.25 * around(module.shrink[0][1], small) + 0.75 * module.tokens
        tokens = tokens.flatten(1)
        wide, tight = module.mix_tokens.expand, module.mix_tokens.contract
        for c in range(4):
            hidden = functional.gelu(wide.weight @ tokens[c] + wide.bias)
            tokens[c] = tokens[c] + tight.weight @ hidden + tight.bias
        for t in range(tokens.shape[1]):
            hidden = at(module.mix_channels.expand, tokens[:, t]).relu()
            tokens[:, t] = tokens[:, t] + at(module.mix_channels.contract, hidden)
        pairs = [at(module.pairs, token) for token in tokens.T]
        for i, j in _PLACES:
            q, heads = at(module.queries, local[:, i, j]), []
            for own in (slice(0, 2), slice(2, 4)):
                scores = torch.stack([q[own] @ p[:4][own] / math.sqrt(2) for p in pairs])
                weights = scores.softmax(0)
                heads.append(sum(w * p[4:][own] for w, p in zip(weights, pairs, strict=True)))
            near(found[:, i, j], local[:, i, j] + at(module.proj, torch.cat(heads)))


@torch.no_grad()
def test_one_softmax_shares_out_a_window_and_the_cells(x: Tensor) -> None:
    module = awake(AggregatedAttention(4, _HIGH, _WIDE, heads=2, window=3, pool=2))
    assert isinstance(module, AggregatedAttention)
    linear, _, _, norm = module.shrink
    cells = [(i, j) for i in range(0, _HIGH, 2) for j in range(0, _WIDE, 2)]
    for sample, found in zip(x, module(x), strict=True):
        far = []
        for i, j in cells:
            members = [(i, j), (i, j + 1), (i + 1, j), (i + 1, j + 1)]
            mean = sum(functional.gelu(at(linear, sample[:, a, b])) for a, b in members) / 4
            spread = (mean.var(correction=0) + norm.eps).sqrt()
            far.append(at(module.pairs, (mean - mean.mean()) / spread * norm.weight + norm.bias))
        for i, j in _PLACES:
            heads = [_aggregated(module, sample, far, cells, (i, j), head) for head in range(2)]
            near(found[:, i, j], at(module.proj, torch.cat(heads)))


def _aggregated(
    module: AggregatedAttention, sample: Tensor, far: list[Tensor], cells: list[tuple[int, int]],
    place: tuple[int, int], head: int,
) -> Tensor:  # fmt: skip
    """What one head gives at one place."""
    own, (i, j) = slice(2 * head, 2 * head + 2), place
    window = [(i + di, j + dj) for di in (-1, 0, 1) for dj in (-1, 0, 1)]
    inside = [(n, p) for n, p in enumerate(window) if p in _PLACES]
    pairs = [at(module.pairs, sample[:, a, b]) for _, (a, b) in inside]
    q = at(module.queries, sample[:, i, j])[own]
    q = q / q.norm()
    length = math.log(len(inside) + len(far))
    asked = (q + module.any_query[head, :, 0]) * length
    asked = asked * functional.softplus(module.temperature[head, 0, 0])

    def score(pair: Tensor) -> Tensor:
        key = pair[:4][own]
        return asked @ (key / key.norm())

    scores = [
        score(pair) + module.near_bias[head, n, 0]
        for (n, _), pair in zip(inside, pairs, strict=True)
    ]
    for (a, b), pair in zip(cells, far, strict=True):
        away = torch.tensor([i - a - 0.5, j - b - 0.5])
        away = away.sign() * (1 + away.abs()).log2()
        scores.append(score(pair) + module.far_bias(away)[head])
    weights = torch.stack(scores).softmax(0)
    mixed = sum(w * p[4:][own] for w, p in zip(weights, pairs + far, strict=True))
    for (n, _), pair in zip(inside, pairs, strict=True):
        free = module.any_keys[head, n] @ q + module.any_bias[head, n, 0]
        mixed = mixed + free * pair[4:][own]
    assert isinstance(mixed, Tensor)
    return mixed


@torch.no_grad()
def test_every_frequency_is_weighed_as_its_band(x: Tensor) -> None:
    module = awake(DynamicSpectrum(4, _HIGH, _WIDE, bands=3))
    assert isinstance(module, DynamicSpectrum)
    basis = {}
    for u, v in _PLACES:
        wave = torch.zeros(_HIGH, _WIDE)
        for i, j in _PLACES:
            down = math.cos(math.pi * u * (i + 0.5) / _HIGH)
            wave[i, j] = down * math.cos(math.pi * v * (j + 0.5) / _WIDE)
        basis[u, v] = wave / wave.norm()
    for sample, found in zip(x, module(x), strict=True):
        hidden = functional.gelu(at(module.weigh[0], sample.mean((1, 2))))
        weights = at(module.weigh[2], hidden).sigmoid().reshape(4, 3)
        value = torch.stack([at(module.into, sample[:, i, j]) for i, j in _PLACES], 1)
        mixed = torch.zeros(4, _HIGH, _WIDE)
        for (u, v), wave in basis.items():
            band = int(3 * (u / _HIGH + v / _WIDE) / 2 + 1e-12)
            mixed += (weights[:, band] * (value @ wave.flatten()))[:, None, None] * wave
        for i, j in _PLACES:
            near(found[:, i, j], at(module.proj, mixed[:, i, j]))


def _bands(x: Tensor) -> tuple[Tensor, list[Tensor]]:
    """One level of the dual tree, a map [h, w] at a time: its low map and its six complex bands."""
    low = [-1 / 20, 1 / 4, 3 / 5, 1 / 4, -1 / 20]
    high = [t / 280 for t in (3, -15, -73, 170, -73, -15, 3)]

    def along(line: list[float], taps: list[float]) -> list[float]:
        mirror = line[::-1] + line + line[::-1]
        n, reach = len(line), len(taps) // 2
        return [sum(t * mirror[n + i + k - reach] for k, t in enumerate(taps)) for i in range(n)]

    def filtered(down: list[float], across: list[float]) -> Tensor:
        rows = torch.tensor([along(row, across) for row in x.tolist()])
        return torch.tensor([along(column, down) for column in rows.T.tolist()]).T

    found = []
    for sign in (1, -1):
        for down, across in ((low, high), (high, low), (high, high)):
            y = filtered(down, across)
            a, b, c, d = y[::2, ::2], y[::2, 1::2], y[1::2, ::2], y[1::2, 1::2]
            found.append(torch.complex(a - sign * d, b + sign * c) / math.sqrt(2))
    return filtered(low, low), found


def test_wavelets_are_two_filters_and_squares(x: Tensor) -> None:
    low, high = DualTree(_HIGH, _WIDE).double()(x)
    for n, c in ((n, c) for n in range(2) for c in range(4)):
        whole, bands = _bands(x[n, c])
        parities = whole[::2], whole[1::2]  # even rows come first
        near(low[n, c], torch.cat([torch.cat([r[:, ::2], r[:, 1::2]], 1) for r in parities]))
        for k, band in enumerate(bands):
            found = torch.complex(high[n, 0, k, c], high[n, 1, k, c]).reshape(band.shape)
            near(found, band)


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 8), columns=st.integers(1, 8), seed=st.integers(0, 99))
def test_wavelets_come_back(rows: int, columns: int, seed: int) -> None:
    x = torch.randn(1, 2, 2 * rows, 2 * columns, generator=torch.Generator().manual_seed(seed))
    tree = DualTree(2 * rows, 2 * columns)
    torch.testing.assert_close(tree.inverse(*tree(x)), x, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_scattering_blends_channels_and_then_rows(x: Tensor) -> None:
    module = awake(Scattering(4, _HIGH, _WIDE, groups=2))
    assert isinstance(module, Scattering)
    low, high = module.wavelets(x)
    z = torch.complex(high[:, 0], high[:, 1])  # [n, bands, c, h/2 · w/2]
    z = _blended(module.channels.layers, z.transpose(2, 3)).transpose(2, 3)
    z = _blended(module.places.layers, z)
    parts = torch.stack([z.real, z.imag], dim=1)
    near(module(x), module.wavelets.inverse(low * module.low, parts))


def _blended(layers: nn.Sequential, z: Tensor) -> Tensor:
    """Two complex maps of the last axis in groups, a ReLU of both parts between them."""
    for i, layer in enumerate((layers[0], layers[2])):
        weight, bias = torch.complex(*layer.weight), torch.complex(*layer.bias.unbind(1))
        groups = z.unflatten(-1, bias.shape)
        mixed = [w @ part[..., None] for w, part in zip(weight, groups.unbind(-2), strict=True)]
        z = (torch.stack(mixed, -3)[..., 0] + bias).flatten(-2)
        z = torch.complex(z.real.relu(), z.imag.relu()) if i == 0 else z
    return z


@torch.no_grad()
def test_less_attention_first_mixes_no_positions_and_then_all() -> None:
    early, late = tiny_maps.build("less_attention").eval().stages
    for stage, mixes in ((early, False), (late, True)):
        x = torch.randn(1, stage[2].mlp.contract.out_channels, 4, 4)
        other = x.clone()
        other[0, :, 1, 2] += 1.0
        moved = (stage[2:](other) - stage[2:](x)).abs().amax((0, 1)) > 1e-6
        assert int(moved.sum()) == (16 if mixes else 1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: AggregatedAttention(5, 4, 4), "5 channels do not divide into 2 heads"),
        (lambda: AggregatedAttention(4, 5, 4), "a map of 5×4 does not divide into cells of 2"),
        (lambda: AggregatedAttention(4, 4, 4, window=4), "a window of 4 has no middle"),
        (lambda: AggregatedAttention(4, 8, 4), "AggregatedAttention is made for maps of 8×4, not"),
        (lambda: StripAttention(5), "5 channels do not divide into 2 heads"),
        (lambda: StripAttention(4, stride=3), "a map of 4×6 does not divide into cells of 3"),
        (lambda: DualTokens(5, 4, 6), "5 channels do not divide into 2 heads"),
        (lambda: DualTokens(4, 4, 6, halvings=2), "a map of 4×6 does not halve 2 times"),
        (lambda: DualTokens(4, 4, 4), "DualTokens is made for maps of 4×4, not of 4×6"),
        (lambda: Scattering(5, 4, 6), "5 channels do not divide into 2 groups"),
        (lambda: Scattering(4, 3, 6), "a map of 3×6 does not divide into squares of 2"),
        (lambda: Scattering(4, 4, 4), "Scattering is made for maps of 4×4, not of 4×6"),
        (lambda: DynamicSpectrum(4, 2, 2, bands=9), "a map of 2×2 has no frequencies for 9 bands"),
        (lambda: DynamicSpectrum(4, 4, 4), "DynamicSpectrum is made for maps of 4×4, not of 4×6"),
    ],
)
def test_impossible_sizes_are_said(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        build()(torch.zeros(1, 4, _HIGH, _WIDE))
