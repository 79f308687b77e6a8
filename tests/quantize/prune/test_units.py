"""What can only go together: the cut model computes what the masked one does."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import rewrites, sources
from edgemix.exporting import call
from edgemix.program import Origin, Program, Step
from edgemix.quantize.prune.axes import Units, units_of
from edgemix.quantize.prune.cut import Keep, cut
from edgemix.quantize.prune.gates import add_gates, set_gates


def _program(module: nn.Module, *shape: int) -> Program:
    torch.manual_seed(0)
    return rewrites.standard(Program.trace(module, (torch.randn(*shape),), Origin("a test")))


def _half(units: Units, seed: int = 0) -> Keep:
    """Half of every width, drawn."""
    generator = np.random.default_rng(seed)
    keep = units.everything()
    for group in units.groups:
        keep[generator.permutation(group.units)[: len(group.units) // 2]] = False
    return keep


def _check(program: Program, units: Units, keep: Keep) -> Program:
    """Cut, and compare with the masked model on drawn inputs and states."""
    small = cut(program, units, keep, Step("prune"))
    masked = program.module()
    add_gates(masked, units)
    torch.manual_seed(1)
    x = [torch.randn(spec.shape) for spec in program.takes]
    for open_, whole in zip(call(masked, *x), program.call(*x), strict=True):
        assert torch.allclose(open_, whole, atol=1e-5)
    set_gates(masked, torch.from_numpy(keep)[None].float())
    wanted = call(masked, *x)
    given = program.module().graph.find_nodes(op="placeholder")
    left = [_left(v, units, node.name, keep) for v, node in zip(x, given, strict=True)]
    found = small.call(*left)
    for i in range(len(program.outputs)):
        span = wanted[i].abs().max()
        assert (found[i] - wanted[i]).abs().max() <= 3e-5 * span
    return small


def _left(value: Tensor, units: Units, name: str, keep: Keep) -> Tensor:
    for dim, axis in enumerate(units.axes[name]):
        value = value.index_select(dim, torch.from_numpy(np.flatnonzero(keep[axis])))
    return value


SYSTEMS = [
    "edgemix.models.presets.tiny_timm:poolformer",
    "edgemix.models.presets.baselines:tiny",
    "edgemix.models.presets.tiny_timm:efficientformer",
    "edgemix.models.presets.tiny_timm:efficientformer_v2",
    "edgemix.models.presets.hydra:tiny",
    "edgemix.models.presets.esc_transformer:tiny",
    "edgemix.models.tiny_maps:dual_attention",
    "edgemix.models.tiny_series:itransformer",
]


@pytest.mark.parametrize(
    ("source", "heads"), [(source, i % 2 == 1) for i, source in enumerate(SYSTEMS)]
)
def test_published_systems_lose_half_of_every_width(source: str, *, heads: bool) -> None:
    program = rewrites.standard(sources.load(source))
    units = units_of(program, heads=heads)
    assert units.halted == ()
    small = _check(program, units, _half(units))
    assert small.parameters < 0.9 * program.parameters


@pytest.mark.parametrize("source", ["spiking_lmuformer", "lmuformer", "mamba_backbone"])
def test_states_shrink_with_what_feeds_them(source: str) -> None:
    program = rewrites.standard(sources.load(f"edgemix.models.tiny:{source}", step=True))
    units = units_of(program)
    small = _check(program, units, _half(units))
    elements = [sum(len(s.start().flatten()) for s in p.states) for p in (small, program)]
    assert elements[0] < elements[1]
    assert [s.name for s in small.states] == [s.name for s in program.states]


class _Packed(nn.Module):
    """Attention of three heads, from one product for queries, keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(-1, 7, 3, 3, 4).permute(2, 0, 3, 1, 4).unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        result: Tensor = self.proj(y.transpose(1, 2).reshape(-1, 7, 12))
        return result


def test_heads_lose_channels_alike_or_go_whole() -> None:
    program = _program(_Packed(), 1, 7, 12)
    channels = units_of(program)
    assert sorted(len(g.units) for g in channels.groups) == [4, 4]  # queries with keys; values
    whole = units_of(program, heads=True)
    assert [len(g.units) for g in whole.groups] == [3]
    _check(program, whole, _half(whole))
    _check(program, channels, _half(channels))


class _Concatenated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.norm, self.last = nn.GroupNorm(2, 10), nn.Conv2d(10, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(torch.cat([self.a(x), self.b(x)], 1))
        first, second = y.split([3, 7], 1)
        result: Tensor = self.last(torch.cat([second, first], 1))
        return result


class _Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.grouped = nn.Conv2d(8, 12, 3, groups=4, padding=1)
        self.depthwise = nn.Conv2d(12, 24, 3, groups=12, padding=1)
        self.last = nn.Conv2d(24, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.depthwise(self.grouped(self.first(x))))
        return result


class _Scaled(nn.Module):
    """LayerScale, and a residual sum that ties what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 8, 1), nn.Conv2d(8, 8, 1)
        self.scale, self.last = nn.Parameter(torch.rand(8, 1, 1)), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        result: Tensor = self.last(y + self.scale * self.second(y).relu())
        return result


@pytest.mark.parametrize("module", [_Concatenated(), _Grouped(), _Scaled()])
@pytest.mark.parametrize("seed", range(3))
def test_ties_hold(module: nn.Module, seed: int) -> None:
    channels = 1 if isinstance(module, _Scaled) else 3
    program = _program(module, 1, channels, 5, 5)
    units = units_of(program)
    assert units.groups
    _check(program, units, _half(units, seed))


def test_a_model_of_one_input_channel_is_no_depthwise_convolution() -> None:
    program = _program(nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 2, 1)), 1, 1, 5, 5)
    assert [len(g.units) for g in units_of(program).groups] == [6]


@pytest.mark.parametrize(
    "blind", [lambda y: torch.sort(y, 1).values, lambda y: y.cumsum(1), lambda y: y.softmax(1)]
)
def test_what_is_not_seen_through_keeps_its_channels(blind: Callable[[Tensor], Tensor]) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(blind(self.first(x)))
            return result

    program = Program.trace(Model(), (torch.randn(1, 3),), Origin("a test"))
    assert units_of(program).groups == ()
