"""Small MetaFormers on feature maps, a factory for every token mixer: what tests and boards afford.

Every factory gives ``(module, example)`` with fixed random weights and an example [1, 3, 16, 16]:
``edgemix deploy edgemix.models.tiny_maps:fourier``. Two blocks at 8×8 positions, then one at 4×4.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from edgemix.models.lively import Factory, drawn, see_noise
from edgemix.models.metaformer import Embedding, MetaFormer, Mixer, Stage
from edgemix.models.mixers.additive_attention import AdditiveAttention
from edgemix.models.mixers.aggregated_attention import AggregatedAttention
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.attention_free import AttentionFree
from edgemix.models.mixers.channel_attention import ChannelAttention
from edgemix.models.mixers.conv_glu import ConvGlu
from edgemix.models.mixers.dual_tokens import DualTokens
from edgemix.models.mixers.efficient_attention import EfficientAttention
from edgemix.models.mixers.ffnified_attention import FfnifiedAttention
from edgemix.models.mixers.flow_attention import FlowAttention
from edgemix.models.mixers.fourier import AdaptiveFilter, Fourier, GlobalFilter
from edgemix.models.mixers.gating_unit import GatingUnit
from edgemix.models.mixers.global_pooling import GlobalPooling
from edgemix.models.mixers.group_attention import GroupAttention
from edgemix.models.mixers.inception import Inception
from edgemix.models.mixers.large_kernel import LargeKernel
from edgemix.models.mixers.latent_attention import LatentAttention
from edgemix.models.mixers.linear import Linear
from edgemix.models.mixers.lstm2d import Lstm2d
from edgemix.models.mixers.mix_shift import MixShift
from edgemix.models.mixers.mlp import ChannelMlp
from edgemix.models.mixers.monarch import Monarch
from edgemix.models.mixers.norm_attention import NormAttention
from edgemix.models.mixers.pooling import Pooling
from edgemix.models.mixers.pooling_network import PoolingNetwork
from edgemix.models.mixers.raft_mlp import RaftMlp
from edgemix.models.mixers.random_matrix import RandomMatrix
from edgemix.models.mixers.reduced_attention import ReducedAttention
from edgemix.models.mixers.scale_modulation import ScaleModulation
from edgemix.models.mixers.scattering import Scattering
from edgemix.models.mixers.separable_conv import SeparableConv
from edgemix.models.mixers.spectrum import DynamicSpectrum
from edgemix.models.mixers.strip_attention import StripAttention
from edgemix.models.mixers.token_mlp import TokenMlp
from edgemix.models.mixers.window_attention import WindowAttention

_SHAPE, _DIMS, _SIDES = (3, 16, 16), (12, 16), (8, 4)


def _same(mixer: Mixer) -> tuple[Mixer, Mixer]:
    return mixer, mixer


def _placed(mixer: Callable[..., nn.Module]) -> tuple[Mixer, Mixer]:
    """A mixer whose weights depend on the number of positions."""
    first, second = (partial(mixer, positions=side * side) for side in _SIDES)
    return first, second


def _mapped(mixer: Callable[..., nn.Module]) -> tuple[Mixer, Mixer]:
    """A mixer whose weights depend on height and width."""
    first, second = (partial(mixer, height=side, width=side) for side in _SIDES)
    return first, second


MIXERS: dict[str, tuple[Mixer, Mixer]] = {
    "identity": _same(nn.Identity),
    "random_matrix": _placed(RandomMatrix),
    "pooling": _same(Pooling),
    "global_pooling": _same(GlobalPooling),
    "linear": _placed(Linear),
    "token_mlp": _placed(TokenMlp),
    "separable_conv": _same(SeparableConv),
    "large_kernel": _same(LargeKernel),
    "ffnified_attention": _same(FfnifiedAttention),
    "inception": _same(partial(Inception, heads=1, head_dim=4, pool=2)),
    "attention": _same(Attention),
    "channel_attention": _same(ChannelAttention),
    "additive_attention": _same(AdditiveAttention),
    "efficient_attention": _same(EfficientAttention),
    "fourier": _same(Fourier),
    "global_filter": _mapped(GlobalFilter),
    "adaptive_filter": _mapped(AdaptiveFilter),
    "lstm2d": _same(Lstm2d),
    "raft_mlp": _mapped(RaftMlp),
    "mix_shift": _same(partial(MixShift, shifts=(0, 1))),
    "gating_unit": _placed(GatingUnit),
    "scale_modulation": (ScaleModulation, Attention),
    "aggregated_attention": _mapped(AggregatedAttention),
    "dual_attention": (partial(WindowAttention, window=4), GroupAttention),
    "twins": (partial(WindowAttention, window=4), ReducedAttention),
    "strip_attention": _same(StripAttention),
    "dual_tokens": _mapped(DualTokens),
    "less_attention": (ChannelMlp, Attention),
    "spectral": (partial(GlobalFilter, height=_SIDES[0], width=_SIDES[0]), Attention),
    "scattering": _mapped(Scattering),
    "dynamic_spectrum": _mapped(DynamicSpectrum),
    "attention_free": _placed(AttentionFree),
    "latent_attention": _same(LatentAttention),
    "norm_attention": (partial(WindowAttention, window=4), NormAttention),
    "flow_attention": _same(FlowAttention),
    "monarch": _placed(Monarch),
    "pooling_network": _same(PoolingNetwork),
}
"""For the first stage and for the second."""

CHANNEL_MIXERS: dict[str, Mixer] = {"aggregated_attention": ConvGlu}
"""Where it is no perceptron of two layers."""


def build(name: str) -> MetaFormer:
    """The untrained model with one of the mixers."""
    first, second = MIXERS[name]
    channels = CHANNEL_MIXERS.get(name, ChannelMlp)
    stages = (
        Stage(_DIMS[0], 2, first, channels, embedding=Embedding(stride=2)),
        Stage(_DIMS[1], 1, second, channels, embedding=Embedding(stride=2)),
    )
    return MetaFormer(stages, classes=10)


def factory(name: str) -> Factory:
    """That model with weights drawn for seed 0 and norms that have seen noise, and its example."""
    return drawn(partial(build, name), _SHAPE, partial(see_noise, shape=_SHAPE))


def __getattr__(name: str) -> Callable[[], Factory]:
    if name in MIXERS:
        return partial(factory, name)
    raise AttributeError(f"there is no tiny model {name}")


def __dir__() -> list[str]:
    return sorted(MIXERS)
