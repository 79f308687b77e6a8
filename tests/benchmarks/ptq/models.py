"""The reference models: six that are hard to quantize after training.

Each name in ``REFERENCES`` has a factory here, which ``edgemix deploy
tests.benchmarks.ptq.models:NAME`` takes. Weights lie beside this file and were made by ``python -m
tests.benchmarks.ptq.train NAME``, those of the keyword spotter and the jet tagger by the scripts of
the package.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from timm.models import metaformer as timm_metaformer
from torch import Tensor, nn

from edgemix.models import jets, keywords
from edgemix.models.recurrent.lmu import LegendreMemory
from edgemix.models.recurrent.lmuformer import LMUFormer
from tests.benchmarks.ptq.data import CONTEXT, HORIZON

Factory = tuple[nn.Module, tuple[Tensor, ...]]
DIMS, DEPTHS = (32, 64, 96, 128), (1, 1, 2, 1)
WEIGHTS = Path(__file__).with_name("weights")


def build_caformer() -> nn.Module:
    """timm's CAFormer, 0.75 M parameters: two stages of SepConv, two of attention, StarReLU."""
    norms = [timm_metaformer.LayerNorm2dNoBias] * 2 + [timm_metaformer.LayerNormNoBias] * 2
    mixers = [timm_metaformer.SepConv] * 2 + [timm_metaformer.Attention] * 2
    return _timm(token_mixers=mixers, norm_layers=norms)


def build_poolformer() -> nn.Module:
    """timm's PoolFormer of the same plan: GroupNorm of one group, GELU, LayerScale."""
    return _timm(
        token_mixers=timm_metaformer.Pooling,
        norm_layers=timm_metaformer.GroupNorm1,
        downsample_norm=None,
        mlp_act=nn.GELU,
        mlp_bias=True,
        layer_scale_init_values=1e-1,
        res_scale_init_values=None,
        use_mlp_head=False,
    )


def _timm(**options: object) -> nn.Module:
    model = timm_metaformer.MetaFormer(
        in_chans=1, num_classes=10, depths=DEPTHS, dims=DIMS, **options  # type: ignore[arg-type]
    )  # fmt: skip
    # A stem for 224×224 shrinks by four; digits of 32×32 keep more positions.
    model.stem.conv = nn.Conv2d(1, DIMS[0], 7, 2, padding=3)
    return model


class _Norm(nn.Module):
    """LayerNorm over the channels of [n, h, w, c], with the unequal gains of a long training."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        spread = torch.linspace(-2.0, 2.0, dim)[torch.randperm(dim)]
        with torch.no_grad():
            self.norm.weight.copy_(torch.exp(0.8 * spread))
            self.norm.weight[:2] = torch.tensor([12.0, 20.0])

    def forward(self, x: Tensor) -> Tensor:
        normalized: Tensor = self.norm(x)
        return normalized


class _ConvBlock(nn.Module):
    """Depthwise 5×5, LayerNorm, pointwise, GELU, pointwise (ConvNeXt's)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 5, padding=2, groups=dim)
        self.norm = _Norm(dim)
        self.expand, self.reduce = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.reduce(nn.functional.gelu(self.expand(y)))
        return x + y.permute(0, 3, 1, 2)


class _AttentionBlock(nn.Module):
    """Softmax attention over all positions, then a perceptron, each behind a LayerNorm."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = _Norm(dim), _Norm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.expand, self.reduce = nn.Linear(dim, 3 * dim), nn.Linear(3 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        parts = self.qkv(self.norm1(x)).reshape(n, t, 3, self.heads, c // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        scores = torch.matmul(q, k.transpose(-2, -1)) * (c // self.heads) ** -0.5
        mixed = torch.matmul(torch.softmax(scores, -1), v).transpose(1, 2).reshape(n, t, c)
        x = x + self.proj(mixed)
        return x + self.reduce(nn.functional.gelu(self.expand(self.norm2(x))))


class Hybrid(nn.Module):
    """Depthwise stages, a bridge, an attention stage; residuals and norms with outlier channels.

    Trained transformers have a few channels that are many times larger than the others (Bondarenko
    et al., "Understanding and Overcoming the Challenges of Efficient Transformer Quantization",
    EMNLP 2021). Three minutes of training do not grow them, so it starts from them: unequal gains
    of the norms, and residual channels far from zero.
    """

    def __init__(self, dim: int = 48, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, dim, 4, 4)
        self.convs = nn.Sequential(_ConvBlock(dim), _ConvBlock(dim))
        self.bridge = nn.Conv2d(dim, 2 * dim, 2, 2)
        self.attention = nn.Sequential(_AttentionBlock(2 * dim), _AttentionBlock(2 * dim))
        self.norm, self.head = nn.LayerNorm(2 * dim), nn.Linear(2 * dim, classes)
        with torch.no_grad():
            for layer in (self.stem, self.bridge):
                assert layer.bias is not None
                layer.bias[:3] = torch.tensor([-12.0, 25.0, 8.0])

    def forward(self, x: Tensor) -> Tensor:
        x = self.bridge(self.convs(self.stem(x)))
        x = self.attention(x.flatten(2).transpose(1, 2))
        logits: Tensor = self.head(self.norm(x).mean(1))
        return logits


class _MixerBlock(nn.Module):
    """Chen et al., "TSMixer", TMLR 2023: a perceptron over time, then one over features."""

    def __init__(self, steps: int, dim: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.time = nn.Linear(steps, steps)
        self.expand, self.reduce = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = self.time(self.norm1(x).transpose(1, 2))
        x = x + nn.functional.gelu(y).transpose(1, 2)
        return x + self.reduce(nn.functional.gelu(self.expand(self.norm2(x))))


class TSMixer(nn.Module):
    """A forecast of 16 values from 64: [n, 64, 1] → [n, 16]."""

    def __init__(self, dim: int = 24, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Linear(1, dim)
        self.blocks = nn.Sequential(*(_MixerBlock(CONTEXT, dim) for _ in range(depth)))
        self.time, self.head = nn.Linear(CONTEXT, HORIZON), nn.Linear(dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.blocks(self.embed(x)).transpose(1, 2)
        forecast: Tensor = self.head(self.time(y).transpose(1, 2)).flatten(1)
        return forecast + x[:, -1]


BUILD: dict[str, Callable[[], nn.Module]] = {
    "caformer": build_caformer,
    "poolformer": build_poolformer,
    "hybrid": Hybrid,
    "tsmixer": TSMixer,
}
"""The models whose weights lie beside this file, untrained."""


def caformer() -> Factory:
    """CAFormer on digits: [1, 1, 32, 32]."""
    return trained("caformer"), (torch.zeros(1, 1, 32, 32),)


def poolformer() -> Factory:
    """PoolFormer on digits: [1, 1, 32, 32]."""
    return trained("poolformer"), (torch.zeros(1, 1, 32, 32),)


def hybrid() -> Factory:
    """Depthwise and attention stages with outlier channels on digits: [1, 1, 32, 32]."""
    return trained("hybrid"), (torch.zeros(1, 1, 32, 32),)


def tsmixer() -> Factory:
    """TSMixer on the series of statsmodels: [1, 64, 1]."""
    return trained("tsmixer"), (torch.zeros(1, CONTEXT, 1),)


class _ConvolvedMemory(nn.Module):
    """A Legendre memory over a whole sequence, as a convolution with its response to an impulse.

    The package's own form for whole sequences is a Fourier transform, which no peer quantizes.
    """

    def __init__(self, memory: LegendreMemory, steps: int) -> None:
        super().__init__()
        channels, order = memory.channels, memory.order
        response = memory.response(steps).flip(0).T  # [order, steps], the latest step last
        self.convolution = nn.Conv1d(channels, channels * order, steps, groups=channels, bias=False)
        with torch.no_grad():
            self.convolution.weight.copy_(response.repeat(channels, 1)[:, None])
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x.transpose(1, 2), (self.steps - 1, 0))
        memory: Tensor = self.convolution(padded).transpose(1, 2)
        return memory


class _LastStep(nn.Module):
    """A sequence model's answer at the end: what the peers can take of it."""

    def __init__(self, model: LMUFormer, steps: int) -> None:
        super().__init__()
        self.model = model
        for mixer in model.mixers:
            mixer.memory = _ConvolvedMemory(mixer.memory, steps)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x)[:, -1]
        return logits


def lmuformer() -> Factory:
    """LMUFormer on whole utterances, its answer at the end."""
    model, example = keywords.lmuformer()
    assert isinstance(model, LMUFormer)
    return _LastStep(model, example.shape[1]).eval(), (example,)


def jet_transformer() -> Factory:
    """One block of attention among 16 particles."""
    return jets.transformer()


REFERENCES: dict[str, Callable[[], Factory]] = {
    "caformer": caformer,
    "poolformer": poolformer,
    "hybrid": hybrid,
    "tsmixer": tsmixer,
    "lmuformer": lmuformer,
    "jets": jet_transformer,
}


def trained(name: str) -> nn.Module:
    """A model with the weights beside this file, which are stored in 16 bits."""
    model = BUILD[name]()
    stored = safetensors.torch.load_file(WEIGHTS / f"{name}.safetensors")
    model.load_state_dict({key: value.float() for key, value in stored.items()})
    return model.eval()
