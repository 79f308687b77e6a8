"""Jet taggers small enough for a trigger's FPGA: gluon, quark, W, Z or top.

Each name in ``MODELS`` is a factory that ``edgemix deploy edgemix.models.jets:NAME`` takes. The
weights come with the package and were made by ``python -m edgemix.models.jets.train NAME`` from the
jets of :mod:`edgemix.data.shower`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import resources

import safetensors.torch
import torch
from torch import Tensor, nn

from edgemix.models.jets.transformer import Transformer
from edgemix.models.metaformer import Embedding, MetaFormer, Mixer, Stage
from edgemix.models.mixers.global_pooling import GlobalPooling
from edgemix.models.mixers.linear import Linear

CLASSES = 5


class ParticleMetaFormer(nn.Module):
    """A MetaFormer whose map is one column of particles.

    Shape: [n, particles, 3] → [n, classes].
    """

    def __init__(self, mixer: Mixer, *, dim: int, depth: int) -> None:
        super().__init__()
        stage = Stage(dim=dim, depth=depth, mixer=mixer, embedding=Embedding(kernel=1))
        self.metaformer = MetaFormer((stage,), channels=3, classes=CLASSES)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        logits: Tensor = self.metaformer(x.transpose(1, 2).unsqueeze(-1))
        return logits


@dataclass(frozen=True)
class Recipe:
    """What a model is made of."""

    build: Callable[[], nn.Module]
    """The untrained model."""
    data: str
    """What it learns from, in ``edgemix.data.jets.MAKERS``."""
    shape: tuple[int, ...]
    """Of one input."""


def _perceptron() -> nn.Module:
    """That of Duarte et al., JINST 13 (2018) P07027."""
    return nn.Sequential(
        nn.Linear(16, 64),
        nn.ReLU(),
        nn.Linear(64, 32),
        nn.ReLU(),
        nn.Linear(32, 32),
        nn.ReLU(),
        nn.Linear(32, CLASSES),
    )


MODELS = {
    "transformer": Recipe(partial(Transformer, dim=8, depth=1, classes=CLASSES), "jets", (16, 3)),
    "pooling": Recipe(
        partial(ParticleMetaFormer, GlobalPooling, dim=16, depth=2), "jets32", (32, 3)
    ),
    "linear_mixer": Recipe(
        partial(ParticleMetaFormer, partial(Linear, positions=32), dim=16, depth=2),
        "jets32",
        (32, 3),
    ),
    "mlp": Recipe(_perceptron, "jet-features", (16,)),
}

Factory = tuple[nn.Module, tuple[Tensor, ...]]


def transformer() -> Factory:
    """One block of attention among 16 particles: input [1, 16, 3]."""
    return _trained("transformer")


def pooling() -> Factory:
    """Particles compared with the mean of 32: input [1, 32, 3]."""
    return _trained("pooling")


def linear_mixer() -> Factory:
    """A learned matrix over 32 particles, ordered by momentum: input [1, 32, 3]."""
    return _trained("linear_mixer")


def mlp() -> Factory:
    """A perceptron on sixteen features of the jet's shape: input [1, 16]."""
    return _trained("mlp")


def _trained(name: str) -> Factory:
    recipe = MODELS[name]
    model = recipe.build()
    data = (resources.files(__name__) / f"{name}.safetensors").read_bytes()
    model.load_state_dict(safetensors.torch.load(data))
    return model.eval(), (torch.zeros(1, *recipe.shape),)
