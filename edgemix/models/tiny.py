"""Small models with a memory, one factory each: what tests and first looks run.

Every factory gives ``(module, example)`` with fixed random weights and an example [1, time, ...]:
``edgemix inspect edgemix.models.tiny:mamba --step``.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from edgemix.models.recurrent.causal_conv import CausalConv
from edgemix.models.recurrent.chunked_attention import ChunkedAttention
from edgemix.models.recurrent.delta_product import DeltaProduct
from edgemix.models.recurrent.fast_conformer import ConformerBlock
from edgemix.models.recurrent.fsmn import FSMN, DeepFSMNBlock
from edgemix.models.recurrent.linear_attention import (
    DeltaNet,
    GatedLinearAttention,
    LinearAttention,
)
from edgemix.models.recurrent.linear_transformer import LinearTransformer
from edgemix.models.recurrent.lmu import LMU, LMUCell
from edgemix.models.recurrent.lmuformer import LMUFormer
from edgemix.models.recurrent.mamba import Mamba
from edgemix.models.recurrent.mamba_backbone import MambaBackbone
from edgemix.models.recurrent.s4d import S4D
from edgemix.models.recurrent.skim import SkiM
from edgemix.models.recurrent.tcn import TCN
from edgemix.models.recurrent.xlstm import MLSTM, SLSTM
from edgemix.models.spiking.delays import DelayMlp
from edgemix.models.spiking.lmuformer import SpikingLMUFormer
from edgemix.models.spiking.max_former import MaxFormer
from edgemix.models.spiking.neurons import LIF, AdaptiveLIF, LeakyIntegrator
from edgemix.streaming.forms import Chain, Pointwise

Factory = Callable[[], tuple[nn.Module, Tensor]]

_FEATURES = 4
_TIME = 32


def lstm() -> tuple[nn.Module, Tensor]:
    """``nn.LSTM``, two layers."""
    return _seeded(lambda: nn.LSTM(_FEATURES, 6, num_layers=2, batch_first=True))


def gru() -> tuple[nn.Module, Tensor]:
    """``nn.GRU``."""
    return _seeded(lambda: nn.GRU(_FEATURES, 8, batch_first=True))


def rnn() -> tuple[nn.Module, Tensor]:
    """``nn.RNN``."""
    return _seeded(lambda: nn.RNN(_FEATURES, 8, batch_first=True))


def causal_conv() -> tuple[nn.Module, Tensor]:
    """A depthwise causal convolution, and a dilated one over all channels."""
    return _seeded(
        lambda: Chain(
            [
                CausalConv(_FEATURES, 3, depthwise=True),
                Pointwise(nn.ReLU()),
                CausalConv(_FEATURES, 3, 8, dilation=2),
            ]
        )
    )


def lif() -> tuple[nn.Module, Tensor]:
    """Two layers of LIF neurons, one reset by subtraction and one to zero."""
    return _seeded(lambda: _spiking(LIF(16, leak=0.1), LIF(8, leak=0.25, reset="zero")))


def adaptive_lif() -> tuple[nn.Module, Tensor]:
    """A layer of neurons with adapting thresholds."""
    return _seeded(lambda: _spiking(AdaptiveLIF(16, leak=0.1), AdaptiveLIF(8, leak=0.25)))


def max_former() -> tuple[nn.Module, Tensor]:
    """Max-Former on pictures of 4 × 4."""
    return _seeded(lambda: MaxFormer(1, (4, 4), 3, dim=4), (1, 4, 4))


def delay_mlp() -> tuple[nn.Module, Tensor]:
    """A spiking network with learned delays."""
    return _seeded(lambda: DelayMlp(_FEATURES, (8, 8), 3, longest=6))


def lmu() -> tuple[nn.Module, Tensor]:
    """The parallel LMU."""
    return _seeded(lambda: LMU(_FEATURES, 6, channels=2, order=4, window=16.0))


def lmu_cell() -> tuple[nn.Module, Tensor]:
    """The LMU as it was published."""
    return _seeded(lambda: LMUCell(_FEATURES, 6, order=4, window=16.0))


def lmuformer() -> tuple[nn.Module, Tensor]:
    """LMUFormer."""
    return _seeded(
        lambda: LMUFormer(_FEATURES, 3, dim=8, channels=2, order=4, window=16.0, expand=2)
    )


def spiking_lmuformer() -> tuple[nn.Module, Tensor]:
    """Spiking LMUFormer."""
    return _seeded(
        lambda: SpikingLMUFormer(_FEATURES, 3, dim=8, channels=2, order=4, window=16.0, expand=2)
    )


def mamba() -> tuple[nn.Module, Tensor]:
    """A Mamba block."""
    return _seeded(lambda: Mamba(_FEATURES, states=2, kernel=3, rank=2))


def linear_attention() -> tuple[nn.Module, Tensor]:
    """Linear attention."""
    return _seeded(lambda: LinearAttention(_FEATURES, heads=2))


def gated_linear_attention() -> tuple[nn.Module, Tensor]:
    """Gated linear attention."""
    return _seeded(lambda: GatedLinearAttention(_FEATURES, heads=1))


def delta_net() -> tuple[nn.Module, Tensor]:
    """DeltaNet."""
    return _seeded(lambda: DeltaNet(_FEATURES, heads=2))


def slstm() -> tuple[nn.Module, Tensor]:
    """SLSTM."""
    return _seeded(lambda: SLSTM(_FEATURES, 6))


def mlstm() -> tuple[nn.Module, Tensor]:
    """MLSTM."""
    return _seeded(lambda: MLSTM(_FEATURES))


def chunked_attention() -> tuple[nn.Module, Tensor]:
    """Attention in chunks of two, with a cache of four."""
    return _seeded(lambda: ChunkedAttention(_FEATURES, heads=2, chunk=2, reach=4))


def fast_conformer() -> tuple[nn.Module, Tensor]:
    """A block of the cache-aware FastConformer, chunks of two, with a cache of four."""
    return _seeded(lambda: ConformerBlock(_FEATURES, heads=2, chunk=2, reach=4, kernel=3, expand=2))


def mamba_backbone() -> tuple[nn.Module, Tensor]:
    """A Mamba block behind its norm and beside its residual path, and a head."""
    return _seeded(lambda: MambaBackbone(_FEATURES, 1, 3, states=2, kernel=3))


def linear_transformer() -> tuple[nn.Module, Tensor]:
    """A block of the linear Transformer, and a head."""
    return _seeded(lambda: LinearTransformer(_FEATURES, 1, heads=2, outputs=3, expand=2))


def skim() -> tuple[nn.Module, Tensor]:
    """SkiM, segments of two."""
    return _seeded(lambda: SkiM(_FEATURES, 4, segment=2))


def delta_product() -> tuple[nn.Module, Tensor]:
    """DeltaProduct, two writes a step."""
    return _seeded(lambda: DeltaProduct(_FEATURES, heads=1, writes=2))


def tcn() -> tuple[nn.Module, Tensor]:
    """The TCN of Conv-TasNet, three blocks, norms over a step's channels."""
    return _seeded(lambda: TCN(_FEATURES, 3, dim=4, hidden=6, depth=3))


def s4d() -> tuple[nn.Module, Tensor]:
    """S4D, two complex numbers a channel."""
    return _seeded(lambda: S4D(_FEATURES, states=2, shortest=0.05, longest=0.5))


def fsmn() -> tuple[nn.Module, Tensor]:
    """A compact FSMN, two blocks of three taps."""
    return _seeded(lambda: FSMN(_FEATURES, 3, border=6, hidden=8, rank=4, depth=2, taps=3))


def deep_fsmn() -> tuple[nn.Module, Tensor]:
    """A block of the deep FSMN, four taps, every second step."""
    return _seeded(lambda: DeepFSMNBlock(_FEATURES, 8, taps=4, stride=2))


FACTORIES: tuple[Factory, ...] = (
    lstm, gru, rnn, causal_conv, lif, adaptive_lif, max_former, delay_mlp, lmu, lmu_cell, lmuformer,
    spiking_lmuformer, mamba, linear_attention, gated_linear_attention, delta_net, slstm, mlstm,
    chunked_attention, fast_conformer, mamba_backbone, linear_transformer, skim,
    delta_product, tcn, s4d, fsmn, deep_fsmn,
)  # fmt: skip
"""All of them."""


def _spiking(first: LIF | AdaptiveLIF, second: LIF | AdaptiveLIF) -> nn.Module:
    (hidden,), (outputs,) = first.shape, second.shape
    return Chain(
        [
            Pointwise(nn.Linear(_FEATURES, hidden)), first, Pointwise(nn.Linear(hidden, outputs)),
            second, Pointwise(nn.Linear(outputs, 3)), LeakyIntegrator(3),
        ]
    )  # fmt: skip


def _seeded(
    make: Callable[[], nn.Module], shape: tuple[int, ...] = (_FEATURES,)
) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
        _settle(module, torch.randn(8, _TIME, *shape))
    return module.eval(), torch.zeros(1, _TIME, *shape)


def _settle(module: nn.Module, x: Tensor) -> None:
    """Give batch norms the statistics of data, and spiking layers inputs that make them fire."""
    for part in module.modules():
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.uniform_(part.bias, -0.2, 0.4)
    module.train()
    with torch.no_grad():
        for _ in range(20):
            module(x)
    module.eval()
