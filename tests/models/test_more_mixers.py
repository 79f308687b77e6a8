"""Token mixers of the second tier: what each must do by its definition."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.mixers.attention import attended, in_heads
from edgemix.models.mixers.attention_free import AttentionFree
from edgemix.models.mixers.flow_attention import FlowAttention
from edgemix.models.mixers.gating_unit import GatingUnit
from edgemix.models.mixers.group_attention import GroupAttention
from edgemix.models.mixers.latent_attention import LatentAttention
from edgemix.models.mixers.mix_shift import MixShift
from edgemix.models.mixers.monarch import Monarch
from edgemix.models.mixers.norm_attention import NormAttention
from edgemix.models.mixers.pooling_network import PoolingNetwork
from edgemix.models.mixers.raft_mlp import RaftMlp
from edgemix.models.mixers.scale_modulation import ScaleModulation
from edgemix.models.mixers.window_attention import WindowAttention


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 4, 4, 6, generator=torch.Generator().manual_seed(0))


def near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("mixer", [FlowAttention, GroupAttention, LatentAttention, NormAttention])
def test_what_reads_no_place_follows_a_permutation(mixer: type[nn.Module], x: Tensor) -> None:
    module, order = mixer(4), torch.randperm(24)
    moved = x.flatten(2)[:, :, order].reshape(x.shape)
    near(module(moved), module(x).flatten(2)[:, :, order].reshape(x.shape))


def test_windows_attend_to_themselves(x: Tensor) -> None:
    module = WindowAttention(4, heads=2, window=2)
    whole = module(x)
    for top in (0, 2):
        for left in (0, 2, 4):
            window = x[:, :, top : top + 2, left : left + 2]
            q, k, v = in_heads(module.qkv(window), 2)
            alone = module.proj(attended(q, k, v).reshape(window.shape))
            near(whole[:, :, top : top + 2, left : left + 2], alone)


def test_without_biases_and_with_equal_keys_attention_free_is_the_gated_mean(x: Tensor) -> None:
    module = AttentionFree(4, positions=24)
    with torch.no_grad():
        module.bias.zero_()
        module.qkv.weight[4:8] = 0.0
        q, _, v = module.qkv(x).chunk(3, dim=1)
        near(module(x), module.proj(q.sigmoid() * v.mean((2, 3), keepdim=True)))


def test_attention_free_keys_may_be_large(x: Tensor) -> None:
    assert AttentionFree(4, positions=24)(1e4 * x).isfinite().all()


def test_flows_of_equal_tokens_are_one() -> None:
    """Then nothing competes, and every sink is given what every source has, times σ(1)."""
    module, x = FlowAttention(4, heads=1), torch.ones(1, 4, 3, 3)
    _, _, v = in_heads(module.qkv(x), 1)
    expected = module.proj((v * torch.tensor(1.0).sigmoid()).reshape(x.shape))
    near(module(x), expected)


def test_latents_that_hear_alike_give_the_mean(x: Tensor) -> None:
    module = LatentAttention(4, latents=3)
    with torch.no_grad():
        module.qkv.weight[3:6] = 0.0
        values = module.qkv(x)[:, 6:]
        near(module(x), module.proj(values.mean((2, 3), keepdim=True).expand_as(x)))


def test_monarch_is_a_product_with_one_matrix() -> None:
    """The permuted blocks, multiplied out, are what it applies to every channel."""
    module = Monarch(2, positions=9)
    right, left = (b.detach() for b in module.blocks[:2])
    swap = torch.arange(9).reshape(3, 3).T.flatten()
    permute = torch.eye(9)[swap]
    whole = permute @ torch.block_diag(*left) @ permute @ torch.block_diag(*right)
    with torch.no_grad():
        module.blocks[2].copy_(torch.eye(3).expand(3, 3, 3))
        module.blocks[3].copy_(torch.eye(3).expand(3, 3, 3))
        x = torch.randn(1, 2, 3, 3)
        q, k, v = module.into(x).flatten(2).chunk(3, dim=1)
        near(module(x), module.proj((q * k * (v @ whole.T)).reshape(x.shape)))


def test_shifts_of_nothing_are_a_pointwise_map(x: Tensor) -> None:
    module = MixShift(4, shifts=(0, 0))
    parts = [look(part) for look, part in zip(module.look, x.chunk(2, dim=1), strict=True)]
    near(module(x), module.proj(torch.cat(parts, dim=1)))


def test_a_shift_goes_around_both_ways(x: Tensor) -> None:
    module = MixShift(4, shifts=(0, 1))
    with torch.no_grad():
        for look in module.look:
            look.weight.zero_()
            look.bias.zero_()
            look.weight[:, :, look.weight.shape[2] // 2, look.weight.shape[3] // 2] = 1.0
        expected = torch.cat([x[:, :2], x[:, 2:3].roll(1, 3), x[:, 3:].roll(1, 2)], dim=1)
        near(module(x), module.proj(expected))


def test_a_gate_that_is_open_leaves_the_value(x: Tensor) -> None:
    module = GatingUnit(4, positions=24)
    with torch.no_grad():
        module.gate.contract.weight.zero_()
        module.gate.contract.bias.fill_(1.0)
        near(module(x), module.value(x))


def test_modulators_mix_a_channel_of_every_head(x: Tensor) -> None:
    """The second head's first channel reaches the first group's outputs, and no others."""
    module = ScaleModulation(4, heads=2)
    with torch.no_grad():
        module.into.weight.copy_(torch.eye(4)[:, :, None, None])
        module.value.weight.zero_()
        module.value.bias.fill_(1.0)
        module.proj.weight.copy_(torch.eye(4)[:, :, None, None])
        other = x.clone()
        other[:, 2] += 1.0
        changed = (module(other) - module(x)).abs().amax((0, 2, 3)) > 1e-6
    assert changed.tolist() == [True, True, False, False]


def test_rafts_mix_lines_and_not_the_channels_of_other_rafts(x: Tensor) -> None:
    module = RaftMlp(4, 4, 6, raft=2)
    other = x.clone()
    other[:, 1, 2, 3] += 1.0
    changed = ((module(other) - module(x)).abs() > 1e-7).any(0)
    assert changed.any(-1).any(-1).tolist() == [False, True, False, True]


def test_segments_and_neighbours_are_maxima(x: Tensor) -> None:
    module = PoolingNetwork(4, segment=2)
    with torch.no_grad():
        module.into.weight[12:16] = 0.0
        module.into.bias[12:16] = 0.0  # nothing of its own: the neighbours are left
        local = module.into(x)[:, 20:]
        near(module(x), nn.functional.max_pool2d(local, 3, 1, 1))


@pytest.mark.parametrize(
    ("build", "size", "message"),
    [
        (lambda: RaftMlp(5, 4, 6), None, "5 channels do not divide into rafts of 2"),
        (lambda: RaftMlp(4, 4, 6), (4, 4, 4), "RaftMlp is made for maps of 4×6, not of 4×4"),
        (lambda: MixShift(6, (0, 1)), None, "6 channels do not divide into halves of 2 groups"),
        (lambda: ScaleModulation(5), None, "5 channels do not divide into 2 heads"),
        (lambda: WindowAttention(4, 2, 4), (4, 4, 6), "a map of 4×6 does not divide into windows of"),
        (lambda: PoolingNetwork(4), (4, 3, 6), "a map of 3×6 does not divide into segments of 2"),
        (lambda: Monarch(4, 8), None, "8 positions are no square"),
        (lambda: Monarch(4, 9), (4, 4, 4), "Monarch is made for positions of 9, not of 16"),
        (lambda: AttentionFree(4, 9), (4, 4, 4), "AttentionFree is made for positions of 9, not of"),
    ],
)  # fmt: skip
def test_impossible_sizes_are_said(
    build: Callable[[], nn.Module], size: tuple[int, ...] | None, message: str
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        module = build()
        module(torch.zeros(1, *(size or (4, 4, 6))))
