"""Presets: their sizes are the published ones, and the skeleton's contract."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgemix.errors import InputError
from edgemix.models import presets
from edgemix.models.branches import DepthwiseBranches
from edgemix.models.metaformer import Embedding, MetaFormer, Stage
from edgemix.models.mixers.fourier import AdaptiveFilter
from edgemix.models.norm import ChannelNorm
from edgemix.models.presets import PRESETS
from edgemix.models.presets.esc_transformer import SoundTransformer


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_are_as_published(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model = preset.build()
    learned = sum(p.numel() for p in model.parameters() if p.requires_grad)
    learned -= _folded(model) if preset.folded else 0
    learned -= round(preset.uncounted * 1e6)
    frozen = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    said = preset.parameters if preset.counted is None else preset.counted
    assert said is not None
    digits = len(str(said).partition(".")[2])
    assert round(learned / 1e6, digits) == said
    assert round(frozen / 1e6, 1) == preset.frozen


@pytest.mark.parametrize(
    "name",
    ["identityformer_s12", "randformer_s12", "cas_vit_xs", "iformer_small", "ffnet_1", "affnet_t"],
)
def test_multiply_accumulates_are_as_published(name: str) -> None:
    """Within 4 %: some authors' counters see norms and activations, some see branches folded."""
    preset = PRESETS[name]
    with torch.device("meta"):
        model, x = preset.build().eval(), torch.zeros(1, *preset.input)
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        model(x)
    assert preset.macs is not None
    assert counted.get_total_flops() / 2e9 == pytest.approx(preset.macs, rel=0.04)


@pytest.mark.parametrize("name", ["affnet_et", "affnet_t", "affnet_st"])
def test_affnets_count_leaves_out_layer_norms_and_biases_of_filters(name: str) -> None:
    preset = PRESETS[name]
    with torch.device("meta"):
        model = preset.build()
    norms = [p for m in model.modules() if isinstance(m, ChannelNorm) for p in m.parameters()]
    filters = [m.mask for m in model.modules() if isinstance(m, AdaptiveFilter)]
    biases = [p for m in filters for k, p in m.named_parameters() if k.endswith("bias")]
    assert sum(p.numel() for p in norms + biases) == round(preset.uncounted * 1e6)


def test_the_sound_transformer_has_just_over_6000_parameters() -> None:
    module, (example,) = PRESETS["esc_transformer_6k"].factory()
    assert sum(p.numel() for p in module.parameters()) == 6123
    assert module(example).shape == (1, 11)


def test_the_sound_transformer_knows_the_order_of_its_frames() -> None:
    module, (example,) = PRESETS["esc_transformer_6k"].factory()
    x = torch.randn(example.shape)
    assert not torch.equal(module(x), module(x.flip(1)))
    with torch.no_grad():
        module.at.zero_()  # type: ignore[union-attr,operator]
    torch.testing.assert_close(module(x), module(x.flip(1)))


def test_heads_that_do_not_divide_are_refused() -> None:
    with pytest.raises(InputError, match="16 features do not divide into 3 heads"):
        SoundTransformer(8, 4, 2, heads=3)


def _folded(model: nn.Module) -> int:
    """Parameters that are left out when norms and small branches go into convolutions."""
    small = {m.small for m in model.modules() if isinstance(m, DepthwiseBranches)}
    inside = {part for branch in small for part in branch.modules()}
    gone = sum(p.numel() for branch in small for p in branch.parameters())
    for norm in model.modules():
        if isinstance(norm, nn.BatchNorm2d) and norm not in inside:
            gone += norm.num_features  # a gain and a shift become a bias
    last = list(model.modules())
    return gone - [m for m in last if isinstance(m, nn.BatchNorm2d)][-1].num_features


@pytest.mark.parametrize("name", ["identityformer_s12", "randformer_s12", "cas_vit_xs"])
def test_a_preset_is_a_factory_that_classifies(name: str) -> None:
    module, (example,) = getattr(presets, name)()
    assert module(example).shape == (1, 1000)
    again, _ = getattr(presets, name)()
    x = torch.randn(example.shape)
    assert torch.equal(module(x), again(x))


def test_no_file_hides_a_preset_of_its_name() -> None:
    for name, preset in PRESETS.items():
        assert getattr(presets, name) == preset.factory


def test_an_unknown_preset_is_an_attribute_that_lacks() -> None:
    with pytest.raises(AttributeError, match="there is no preset poolformer_s99"):
        _ = presets.poolformer_s99


class Shrinks(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, ::2]


@pytest.mark.parametrize("part", ["token", "channel"])
def test_a_mixer_that_changes_the_shape_is_named(part: str) -> None:
    mixers = (Shrinks, nn.Identity) if part == "token" else (nn.Identity, Shrinks)
    model = MetaFormer([Stage(4, 1, *mixers, embedding=Embedding(stride=2))], classes=3)
    with pytest.raises(
        InputError, match=rf"the {part} mixer Shrinks takes \[1, 4, 4, 4\]"
    ) as caught:
        model(torch.zeros(1, 3, 8, 8))
    assert "keeps the shape" in str(caught.value)
