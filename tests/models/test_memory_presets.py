"""Presets with a memory: published counts, steps that are the sequence, equations of new parts."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from edgemix.errors import InputError
from edgemix.models.norm import FeatureNorm
from edgemix.models.presets import PRESETS
from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.chunked_conv import ChunkedConv
from edgemix.models.recurrent.conv_lmuformer import ConvLMUFormer, ConvPatchEmbedding
from edgemix.models.recurrent.fast_conformer import FastConformer
from edgemix.models.recurrent.linear_transformer import LinearTransformer
from edgemix.models.recurrent.mamba_backbone import MambaBackbone
from edgemix.models.recurrent.relative_attention import RelativeChunkedAttention
from edgemix.models.recurrent.skim_separator import SkiMSeparator
from edgemix.models.spiking.conv_lmuformer import SpikingConvLMUFormer
from edgemix.models.spiking.delays import DelayedLinear, DelayMlp
from edgemix.models.spiking.neurons import averaging
from edgemix.models.spiking.self_attention import SpikingSelfAttention
from edgemix.models.spiking.staged_max_former import (
    SpikingStage,
    StagedMaxFormer,
    attention,
    depthwise,
    max_pooled,
    quarter_size_start,
    whole_size_start,
)
from edgemix.program import Origin
from edgemix.streaming.protocol import Stepwise, by_steps
from edgemix.streaming.trace import step_program


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("delays_shd", 214_016),
        ("delays_commands_2l", 705_536),
        ("delays_commands_3l", 1_230_848),
        ("delays_commands_3l_2kc", 2_458_624),
        ("linear_transformer_mnist", 6_326_302),
        ("linear_transformer_cifar10", 12_644_382),
        ("lmuformer_commands", 1_621_796),
        ("spiking_lmuformer_commands", 1_689_894),
        ("mamba_130m", 129_135_360),
        ("max_former_10_384", 16_237_240),
        ("max_former_10_512", 28_653_480),
        ("max_former_10_768", 63_992_200),
        ("max_former_cifar10", 6_568_282),
        ("max_former_cifar100", 6_602_932),
        ("fast_conformer_large", 109_419_009),
        ("skim_causal", 2_143_489),
    ],
)
def test_parameters_are_those_of_the_published_code(name: str, count: int) -> None:
    with torch.device("meta"):
        model = PRESETS[name].build()
    assert sum(p.numel() for p in model.parameters()) == count


def test_a_transducers_decoder_makes_up_the_rest_of_the_published_114_million() -> None:
    with torch.device("meta"):
        model = PRESETS["fast_conformer_large"].build()
        predictor = nn.LSTM(640, 640)
        joint = [nn.Linear(512, 640), nn.Linear(640, 640), nn.Linear(640, 1025)]
        decoder = nn.ModuleList([nn.Embedding(1025, 640), predictor, *joint])
    count = sum(p.numel() for module in (model, decoder) for p in module.parameters())
    assert count == 114_752_514


_LARGE = (
    SpikingStage(4, 1, quarter_size_start, 4, depthwise(7)),
    SpikingStage(8, 1, max_pooled, 2, attention(2)),
)
_SMALL = (
    SpikingStage(4, 1, whole_size_start, 1, None),
    SpikingStage(8, 1, max_pooled, 2, depthwise(3)),
)
_DELAYED = partial(DelayedLinear, longest=5, count=2)

MODELS: dict[str, tuple[Callable[[], Stepwise], tuple[int, ...]]] = {
    "lmuformer": (lambda: ConvLMUFormer(4, 3, dim=8, order=8, window=16.0), (32, 4)),
    "spiking_lmuformer": (lambda: SpikingConvLMUFormer(4, 3, dim=8, order=8, window=16.0), (32, 4)),
    "delays": (
        lambda: DelayMlp(4, (8, 8), 3, longest=5, count=2, leak=0.6, reset="zero", head=_DELAYED),
        (32, 4),
    ),
    "mamba": (lambda: MambaBackbone(8, 2, 5), (32, 8)),
    "linear_transformer": (lambda: LinearTransformer(8, 2, 2, 5), (32, 8)),
    "fast_conformer": (
        lambda: FastConformer(
            8, 5, dim=8, depth=2, heads=2, channels=3, chunk=2, reach=4, kernel=3
        ),
        (128, 8),
    ),
    "skim": (lambda: SkiMSeparator(4, 6, 3, segment=4), (32, 1)),
    "max_former": (lambda: StagedMaxFormer(3, (16, 16), 5, _LARGE), (4, 3, 16, 16)),
    "max_former_cifar": (lambda: StagedMaxFormer(3, (8, 8), 5, _SMALL), (4, 3, 8, 8)),
}


def drawn(build: Callable[[], Stepwise]) -> Stepwise:
    """A model whose norms and biases do something, so that its neurons fire."""
    torch.manual_seed(0)
    model = build()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, (nn.BatchNorm2d, FeatureNorm)):
                assert module.running_mean is not None and module.running_var is not None
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.2, 0.5)
                module.bias.uniform_(0, 0.8)
            if isinstance(module, RelativeChunkedAttention):
                module.content_bias.uniform_(-0.5, 0.5)
                module.place_bias.uniform_(-0.5, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_steps_are_the_sequence(name: str) -> None:
    build, shape = MODELS[name]
    model = drawn(build)
    x = 2 * torch.randn(2, *shape)
    with torch.no_grad():
        whole, (stepped, _) = model(x), by_steps(model, x)
    assert float(whole.std(1).max()) > 0.02
    torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-5)
    program = step_program(model, torch.zeros(1, *shape), Origin(name))
    assert program.states


def test_the_published_embedding_comes_five_steps_later() -> None:
    """Away from both ends, where one pads with zeros and the other has no more to hear."""
    embedding = drawn(lambda: ConvPatchEmbedding(3, 4))
    assert isinstance(embedding, ConvPatchEmbedding)
    x = torch.randn(2, 40, 3)

    def published(conv: nn.Module, y: Tensor) -> Tensor:
        assert isinstance(conv, CausalConv)
        return nn.functional.conv1d(y.transpose(1, 2), conv.conv.weight, padding=1).transpose(1, 2)

    with torch.no_grad():
        y = x
        for conv, norm in zip(embedding.convs, embedding.norms, strict=True):
            y = norm(torch.relu(published(conv, y)))
        y = y + published(embedding.place, y)
        torch.testing.assert_close(embedding(x)[:, 10:], y[:, 5:-5], rtol=0, atol=1e-5)


def test_an_averaging_neuron_is_one_whose_input_decays() -> None:
    x = 3 * torch.rand(2, 50, 4)
    neuron, v, found = averaging(4, threshold=0.5, tau=2.5), torch.zeros(2, 4), []
    for t in range(50):
        v = v + (x[:, t] - v) / 2.5
        found.append((v >= 0.5).float())
        v = v * (1 - found[-1])
    spikes = neuron.eval()(x)
    assert torch.equal(spikes, torch.stack(found, 1)) and 0.1 < float(spikes.mean()) < 0.9


def test_relative_scores_are_the_published_sum() -> None:
    layer = RelativeChunkedAttention(8, 2, chunk=2, reach=4)
    with torch.no_grad():
        layer.content_bias.uniform_(-1, 1)
        layer.place_bias.uniform_(-1, 1)
    q, k = torch.randn(1, 2, 6, 4), torch.randn(1, 2, 6, 4)
    pairs = torch.arange(0, 8, 2)
    expected = torch.empty(1, 2, 6, 6)
    with torch.no_grad():
        for i in range(6):
            for j in range(6):
                angle = (i - j) * 10_000.0 ** (-pairs / 8)
                waves = torch.stack([angle.sin(), angle.cos()], -1).flatten()
                place = (layer.place @ waves).reshape(2, 4)
                content = (q[0, :, i] + layer.content_bias[:, 0]) * k[0, :, j]
                by_place = (q[0, :, i] + layer.place_bias[:, 0]) * place
                expected[0, :, i, j] = (content + by_place).sum(-1) / math.sqrt(4)
        found = layer._scores(q * 4**-0.5, k)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_weights_that_are_loaded_change_what_distances_stand_for() -> None:
    one, other = (RelativeChunkedAttention(4, 2, chunk=2, reach=2).eval() for _ in range(2))
    other.load_state_dict(one.state_dict())
    x = torch.randn(1, 8, 4)
    with torch.no_grad():
        assert torch.equal(by_steps(one, x)[0], by_steps(other, x)[0])


def test_a_synapse_with_two_delays_is_two_taps() -> None:
    layer = DelayedLinear(1, 1, 6, count=2)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([[[1.2, 4.0]]]))
        layer.weight.copy_(torch.tensor([[[1.0, 10.0]]]))
    x = torch.zeros(1, 8, 1)
    x[0, 0] = 1.0
    with torch.no_grad():
        assert layer.eval()(x).flatten().tolist() == [0, 1, 0, 0, 10, 0, 0, 0]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RelativeChunkedAttention(3, 3), "3 channels are no pairs of a sine and a cosine"),
        (lambda: ChunkedConv(3, 1, chunk=2), "a convolution of one tap is a linear map"),
        (lambda: SpikingSelfAttention(6, (2, 2), 4), "6 channels do not divide into 4 heads"),
        (lambda: StagedMaxFormer(3, (10, 16), 5, _LARGE), "10 × 16 does not divide by 4"),
    ],
    ids=["odd channels", "one tap", "heads", "size"],
)
def test_impossible_sizes_are_refused(build: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
