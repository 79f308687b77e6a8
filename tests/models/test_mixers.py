"""Token mixers: what each must do by its definition, and that each survives the rewrites."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from edgemix import rewrites
from edgemix.errors import InputError
from edgemix.models import tiny_maps
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.channel_attention import ChannelAttention
from edgemix.models.mixers.efficient_attention import EfficientAttention
from edgemix.models.mixers.fourier import AdaptiveFilter, Fourier, GlobalFilter
from edgemix.models.mixers.inception import Inception
from edgemix.models.mixers.lstm2d import Lstm2d
from edgemix.models.mixers.token_mlp import TokenMlp
from edgemix.program import Origin, Program

_FEW = ("fourier", "adaptive_filter", "inception", "additive_attention", "lstm2d")


@pytest.mark.parametrize(
    "name",
    [n if n in _FEW else pytest.param(n, marks=pytest.mark.slow) for n in tiny_maps.MIXERS],
)
def test_a_tiny_model_is_small_and_its_program_gives_what_it_gives(name: str) -> None:
    module, (example,) = getattr(tiny_maps, name)()
    assert sum(p.numel() for p in module.parameters()) < 100_000
    program = rewrites.standard(Program.trace(module, (example,), Origin(name)))
    x = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x)
    assert float(expected.std(0).min()) > 1e-3  # it looks at its input
    torch.testing.assert_close(program.run(x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(2, 6, 4, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("mixer", [Attention, ChannelAttention, EfficientAttention])
def test_attention_follows_a_permutation_of_the_positions(
    mixer: type[nn.Module], x: torch.Tensor
) -> None:
    module, order = mixer(6), torch.randperm(20)
    moved = x.flatten(2)[:, :, order].reshape(x.shape)
    expected = module(x).flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(module(moved), expected, rtol=1e-4, atol=1e-5)


def test_attention_of_equal_keys_is_the_mean_of_values() -> None:
    module, x = Attention(4, heads=2), torch.randn(1, 4, 3, 3)
    with torch.no_grad():
        module.qkv.weight[4:8] = 0.0
        values = nn.functional.conv2d(x, module.qkv.weight[8:], module.qkv.bias[8:])  # type: ignore[index]
        mean = values.mean((2, 3), keepdim=True).expand_as(x)
        torch.testing.assert_close(module(x), module.proj(mean), rtol=1e-4, atol=1e-5)


def test_fourier_is_the_real_part_of_numpys(x: torch.Tensor) -> None:
    expected = np.fft.fftn(x.numpy(), axes=(1, 2, 3), norm="ortho").real
    np.testing.assert_allclose(Fourier(6)(x).numpy(), expected, atol=1e-5)


def test_a_filter_of_ones_changes_nothing_and_one_of_a_phase_shifts(x: torch.Tensor) -> None:
    module = GlobalFilter(6, 4, 5)
    with torch.no_grad():
        module.filter.zero_()
        module.filter[..., 0] = 1.0
        torch.testing.assert_close(module(x), x, rtol=1e-4, atol=1e-5)
        phase = torch.exp(-2j * torch.pi * torch.arange(4) / 4)[:, None].expand(6, 4, 3)
        module.filter.copy_(torch.view_as_real(phase.contiguous()))
        torch.testing.assert_close(module(x), x.roll(1, 2), rtol=1e-4, atol=1e-5)


def test_an_adaptive_filter_with_a_constant_mask_scales(x: torch.Tensor) -> None:
    module = AdaptiveFilter(6, 4, 5, threshold=0.5)
    with torch.no_grad():
        module.mask[2].weight.zero_()
        module.mask[2].bias[:, 0], module.mask[2].bias[:, 1] = 3.0, -0.25
        torch.testing.assert_close(module(x), 2.5 * x, rtol=1e-4, atol=1e-4)


def test_an_adaptive_filter_is_what_complex_numbers_make_of_it(x: torch.Tensor) -> None:
    module = AdaptiveFilter(6, 4, 5, groups=3)
    with torch.no_grad():
        for part in (module.mask[0], module.mask[2]):
            part.bias.normal_()
        found = mask = torch.fft.rfft2(x, norm="ortho")
        for i, part in enumerate((module.mask[0], module.mask[2])):
            weight, bias = torch.complex(*part.weight), torch.complex(*part.bias.unbind(1))
            groups = mask.unflatten(1, (3, 2)) if i == 0 else mask
            mask = torch.einsum("goi,ngihw->ngohw", weight, groups) + bias[..., None, None]
            shrunk = torch.relu if i == 0 else partial(nn.functional.softshrink, lambd=0.01)
            mask = torch.complex(shrunk(mask.real), shrunk(mask.imag))
        expected = torch.fft.irfft2(found * mask.flatten(1, 2), s=(4, 5), norm="ortho")
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


def test_a_token_mlp_treats_all_channels_alike(x: torch.Tensor) -> None:
    module, order = TokenMlp(6, 20), torch.randperm(6)
    torch.testing.assert_close(module(x[:, order]), module(x)[:, order], rtol=1e-4, atol=1e-5)


def test_lstms_with_the_same_weights_both_ways_follow_a_transposition(x: torch.Tensor) -> None:
    module = Lstm2d(6, 3)
    module.across.load_state_dict(module.down.state_dict())
    with torch.no_grad():
        first = module.proj.weight[:, :6].clone()
        module.proj.weight[:, 6:] = first
        torch.testing.assert_close(
            module(x.transpose(2, 3)), module(x).transpose(2, 3), rtol=1e-4, atol=1e-5
        )


def test_inception_sees_far_only_through_its_attention() -> None:
    module = Inception(12, heads=1, head_dim=4, pool=2).eval()
    x = torch.randn(1, 12, 8, 8)
    far = x.clone()
    far[:, :8, 0, 0] += 1.0  # the channels of the local branches
    with torch.no_grad():
        moved = (module(far) - module(x)).abs().amax(1)[0]
    assert float(moved[:4, :4].max()) > 0 and float(moved[4:, 4:].max()) == 0
    far[:, 8:, 0, 0] += 1.0
    with torch.no_grad():
        assert float((module(far) - module(x)).abs().amax(1)[0, 4:, 4:].min()) > 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Attention(6, heads=4), "6 channels do not divide into 4 heads"),
        (lambda: ChannelAttention(6, heads=4), "6 channels do not divide into 4 heads"),
        (lambda: EfficientAttention(6, heads=4), "6 channels do not divide into 4 heads"),
        (lambda: AdaptiveFilter(6, 4, 4, groups=4), "6 channels do not divide into 4 groups"),
        (lambda: Inception(12, heads=3, head_dim=4), "3 heads of 4 leave 0 of 12 channels"),
    ],
)
def test_impossible_sizes_are_refused(make: type[nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_a_tiny_model_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="there is no tiny model fourrier"):
        _ = tiny_maps.fourrier
