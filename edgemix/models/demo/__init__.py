"""The demos: MetaFormers of some thousand parameters that read handwritten digits.

``create`` and ``pooling`` are factories that ``edgemix deploy edgemix.models.demo:create`` takes;
their weights come with the package and were made by ``python -m edgemix.models.demo.train NAME``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import resources

import safetensors.torch
import torch
from torch import Tensor, nn

from edgemix.models.metaformer import Embedding, MetaFormer, Stage
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.pooling import Pooling

Factory = tuple[nn.Module, tuple[Tensor, ...]]


def build() -> MetaFormer:
    """The untrained model: pooling at 4×4 positions, then attention among the same 16."""
    stages = (
        Stage(dim=8, depth=1, mixer=Pooling, embedding=Embedding(stride=2)),
        Stage(dim=16, depth=1, mixer=partial(Attention, heads=2)),
    )
    return MetaFormer(stages, channels=1, classes=10)


def build_pooling() -> MetaFormer:
    """Pooling alone, at 8×8 positions, then at 4×4: every operator works on windows."""
    stages = (
        Stage(dim=8, depth=1, mixer=Pooling),
        Stage(dim=16, depth=1, mixer=Pooling, embedding=Embedding(stride=2)),
    )
    return MetaFormer(stages, channels=1, classes=10)


MODELS: dict[str, Callable[[], MetaFormer]] = {"digits": build, "pooling": build_pooling}
"""By the name of the weights' file."""


def create() -> Factory:
    """The trained model and an example input [1, 1, 8, 8]."""
    return _trained("digits")


def pooling() -> Factory:
    """The trained model of pooling alone and an example input [1, 1, 8, 8]."""
    return _trained("pooling")


def _trained(name: str) -> Factory:
    model = MODELS[name]()
    data = (resources.files(__name__) / f"{name}.safetensors").read_bytes()
    model.load_state_dict(safetensors.torch.load(data))
    return model.eval(), (torch.zeros(1, 1, 8, 8),)
