"""Mixers of series: what each part must do by its definition, and that its authors' code agrees."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from transformers import PatchTSMixerConfig, PatchTSMixerForPrediction

from edgemix import rewrites
from edgemix.errors import InputError
from edgemix.models.norm import FeatureNorm
from edgemix.models.presets import PRESETS, patch_tsmixer, ttm
from edgemix.models.series.block import Mix, Plan
from edgemix.models.series.gated_mlp import GatedAttention
from edgemix.models.series.patch_tsmixer import PatchTSMixer
from edgemix.models.series.patches import Patches
from edgemix.models.series.scaling import standardize
from edgemix.models.series.ttm import AdaptivePatching, ResolutionPrefix, Ttm
from edgemix.program import Origin, Program

FAMILIES = (patch_tsmixer, ttm)


def drawn(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def test_a_standardized_series_has_mean_0_and_deviation_1_and_comes_back() -> None:
    x = 30.0 * drawn(2, 3, 200) + 500.0
    series = standardize(x)
    torch.testing.assert_close(series.values.mean(-1), torch.zeros(2, 3), rtol=0, atol=1e-5)
    torch.testing.assert_close(series.values.std(-1, correction=0), torch.ones(2, 3))
    torch.testing.assert_close(series.restore(series.values), x)


def test_a_constant_series_is_zero_and_comes_back() -> None:
    series = standardize(torch.full((1, 1, 8), 3.0))
    assert torch.equal(series.values, torch.zeros(1, 1, 8))
    torch.testing.assert_close(series.restore(series.values), torch.full((1, 1, 8), 3.0))


@pytest.mark.parametrize("family", FAMILIES)
def test_a_series_scaled_and_shifted_gives_a_forecast_scaled_and_shifted(
    family: ModuleType,
) -> None:
    module, (example,) = family.tiny()
    x, scale, shift = drawn(5, *example.shape[1:]), 7.0, -40.0
    with torch.no_grad():
        expected = module(x) * scale + shift
        # Not to rounding alone: 1e-5 is added to the variance of both.
        torch.testing.assert_close(module(x * scale + shift), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tiny_model_is_small_and_its_program_gives_what_it_gives(family: ModuleType) -> None:
    module, (example,) = family.tiny()
    assert sum(p.numel() for p in module.parameters()) < 5_000
    program = rewrites.standard(Program.trace(module, (example,), Origin("tiny")))
    x = drawn(64, *example.shape[1:])
    with torch.no_grad():
        expected = module(x)
        series = standardize(x.transpose(1, 2))
        standard = (expected.transpose(1, 2) - series.mean) * series.inverse
    assert float(standard.std(0).min()) > 0.1  # more than the mean and the deviation of its input
    torch.testing.assert_close(program.run(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_gate_gives_out_one_whole() -> None:
    gate, x = GatedAttention(6), drawn(2, 3, 6)
    with torch.no_grad():
        torch.testing.assert_close(gate.weights(x).sum(-1), torch.ones(2, 3))
        gate.score.weight.zero_()
        gate.score.bias.zero_()
        torch.testing.assert_close(gate(x), x / 6)  # nothing to choose by


@pytest.mark.parametrize("stride", [None, 2, 3])
def test_patches_are_windows_of_the_series(stride: int | None) -> None:
    patches = Patches(16, 4, 4, stride)
    with torch.no_grad():
        patches.embed.weight.copy_(torch.eye(4))
        patches.embed.bias.zero_()
        x = drawn(2, 3, 16)
        found = patches(x)
    step = stride or 4
    assert found.shape == (2, 3, (16 - 4) // step + 1, 4)
    for i in range(found.shape[2]):
        assert torch.equal(found[:, :, i], x[..., i * step : i * step + 4])


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_a_mixer_mixes_along_its_axis_alone(axis: int) -> None:
    """Norms look along hidden features, so those move together anyway."""
    mix, x = Mix(Plan(patches=4, hidden=6), axis, (3, 4, 6)[axis - 1]), drawn(1, 3, 4, 6)
    moved = x.clone()
    moved[0, 1, 2] += drawn(6)
    with torch.no_grad():
        changed = (mix(moved) - mix(x)).abs().amax(-1)[0] > 1e-6
    expected = torch.zeros(3, 4, dtype=torch.bool)
    expected[1, 2] = True
    if axis == 1:
        expected[:, 2] = True
    if axis == 2:
        expected[1] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize("mixed", [False, True])
def test_channels_are_apart_unless_they_are_mixed(mixed: bool) -> None:
    models: list[nn.Module] = [
        PatchTSMixer(time=8, horizon=3, channels=2, patch=4, hidden=4, mix_channels=mixed),
        Ttm(
            time=8, horizon=3, channels=2, patch=4, hidden=8, levels=2, decoder_hidden=4,
            mix_channels=mixed,
        ),
    ]  # fmt: skip
    x = drawn(1, 8, 2)
    moved = x.clone()
    moved[..., 0] += drawn(1, 8)
    for model in models:
        with torch.no_grad():
            changed = (model(moved) - model(x)).abs().amax((0, 1)) > 1e-6
        assert changed.tolist() == [True, mixed]


def test_adaptive_patching_without_layers_changes_nothing() -> None:
    x = drawn(2, 3, 4, 8)
    assert torch.equal(AdaptivePatching(Plan(4, 8), 4, 0)(x), x)


def test_adaptive_patching_mixes_parts_of_patches() -> None:
    split = AdaptivePatching(Plan(4, 8), 4, 1)
    mixers = [m for m in split.modules() if isinstance(m, Mix)]
    sizes = {m.axis: m.mlp[0].widen.in_features for m in mixers}
    assert sizes == {2: 4 * 4, 3: 8 // 4}


def test_each_resolution_has_a_patch_of_its_own_in_front() -> None:
    x, first = drawn(2, 3, 4, 8), ResolutionPrefix(3, 0, 5, 8)
    second = ResolutionPrefix(3, 2, 5, 8)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        a, b = first(x), second(x)
    assert torch.equal(a[:, :, 1:], x) and torch.equal(b[:, :, 1:], x)
    assert torch.equal(a[:, :, 0], a[:1, :1, 0].expand(2, 3, 8))
    assert not torch.equal(a[:, :, 0], b[:, :, 0])


def test_a_decoder_that_mixes_14_channels_has_as_many_parameters_as_published() -> None:
    """What granite-tsfm's ttm_channel_mix_finetuning.ipynb counts for its 14 channels."""
    with torch.device("meta"):
        model = Ttm(time=512, horizon=96, channels=14, mix_channels=True)
    assert sum(p.numel() for p in model.parameters()) == 807_864


def test_a_decoder_of_the_backbones_width_has_no_adapter() -> None:
    model = Ttm(time=8, horizon=3, patch=4, hidden=8, levels=1, decoder_hidden=8)
    assert isinstance(model.decoder[0], nn.Identity)


_THEIRS = {"channel_feature_mixer": 1, "patch_mixer": 2, "feature_mixer": 3}
"""Their mixers by the axis of ours."""


def renamed(given: dict[str, Tensor], mixes: bool, gated: bool) -> dict[str, Tensor]:
    """The state of transformers' model by our names."""
    parts = {
        "model.encoder.patcher": "patches.embed", "head.base_forecast_block": "head",
    }  # fmt: skip
    for name, axis in _THEIRS.items():
        place = axis - 1 - (not mixes)
        front = gated and axis == 1
        for i in range(2):
            theirs = f"model.encoder.mlp_mixer_encoder.mixers.{i}.{name}"
            ours = f"layers.{i}.mixers.{place}"
            parts[f"{theirs}.norm.norm"] = f"{ours}.norm"
            parts[f"{theirs}.norm.norm.batchnorm"] = f"{ours}.norm"
            parts[f"{theirs}.mlp.fc1"] = f"{ours}.mlp.{int(front)}.widen"
            parts[f"{theirs}.mlp.fc2"] = f"{ours}.mlp.{int(front)}.narrow"
            parts[f"{theirs}.gating_block.attn_layer"] = f"{ours}.mlp.{int(not front)}.score"
    found = {}
    for name, value in given.items():
        part, _, leaf = name.rpartition(".")
        found[f"{parts[part]}.{leaf}"] = value
    return found


@pytest.mark.parametrize(
    ("mixes", "gated", "stride", "norm"),
    [
        (True, True, 8, "LayerNorm"),
        (False, True, 4, "LayerNorm"),
        (True, False, 4, "BatchNorm"),
    ],
)
def test_numbers_are_those_of_the_authors_code(
    mixes: bool, gated: bool, stride: int, norm: str
) -> None:
    config = PatchTSMixerConfig(
        context_length=32, prediction_length=6, num_input_channels=3, patch_length=8,
        patch_stride=stride, d_model=12, num_layers=2, expansion_factor=3, gated_attn=gated,
        mode="mix_channel" if mixes else "common_channel", norm_mlp=norm,
    )  # fmt: skip
    torch.manual_seed(0)
    theirs = PatchTSMixerForPrediction(config).eval()
    ours = PatchTSMixer(
        time=32, horizon=6, channels=3, patch=8, stride=stride, hidden=12, layers=2, expansion=3,
        mix_channels=mixes, gated=gated, norm=nn.LayerNorm if norm == "LayerNorm" else FeatureNorm,
    ).eval()  # fmt: skip
    with torch.no_grad():
        for p in theirs.parameters():
            p.normal_(0, 0.3)
        ours.load_state_dict(renamed(theirs.state_dict(), mixes, gated))
        x = 5 * drawn(4, 32, 3) + 2
        torch.testing.assert_close(ours(x), theirs(x).prediction_outputs, rtol=1e-5, atol=1e-5)


def test_the_preset_has_as_many_parameters_as_the_authors_code() -> None:
    config = PatchTSMixerConfig(
        context_length=512, prediction_length=96, num_input_channels=7, patch_length=16,
        patch_stride=16, d_model=48, num_layers=2, expansion_factor=3,
    )  # fmt: skip
    theirs = sum(p.numel() for p in PatchTSMixerForPrediction(config).parameters())
    assert sum(p.numel() for p in PRESETS["patch_tsmixer_512"].build().parameters()) == theirs


@pytest.mark.parametrize("name", ["patch_tsmixer_512", "ttm_r2_512", "ttm_research_512"])
def test_a_preset_forecasts_96_steps_of_each_channel(name: str) -> None:
    module, (example,) = PRESETS[name].factory()
    assert module(example).shape == (1, 96, example.shape[2])


def _ttm(**sizes: int) -> Ttm:
    return Ttm(time=16, horizon=4, **{"patch": 4, "hidden": 8, **sizes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Patches(16, 5, 8), "patches of 5 steps, 5 apart, do not end where a series of 16"),
        (lambda: Patches(16, 4, 8, 5), "patches of 4 steps, 5 apart, do not end"),
        (lambda: Patches(3, 4, 8), "patches of 4 steps, 4 apart, do not end where a series of 3"),
        (lambda: Patches(16, 4, 8, 0), "patches of 4 steps, 0 apart"),
        (lambda: _ttm(hidden=6), "6 features do not divide into 4 parts"),
        (lambda: _ttm(resolutions=3, resolution=3), "resolution 3 is not among 3"),
    ],
)
def test_impossible_sizes_are_refused(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()
