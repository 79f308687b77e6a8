"""The demo: a MetaFormer of four thousand parameters that reads handwritten digits.

``create`` is the factory that ``edgemix deploy edgemix.models.demo:create`` takes; its weights
come with the package and were made by ``python -m edgemix.models.demo.train``.
"""

from __future__ import annotations

from functools import partial
from importlib import resources

import safetensors.torch
import torch
from torch import Tensor, nn

from edgemix.models.metaformer import MetaFormer, Stage
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.pooling import Pooling

WEIGHTS = "digits.safetensors"


def build() -> MetaFormer:
    """The untrained model: pooling at 4×4 positions, then attention among the same 16."""
    stages = (
        Stage(dim=8, depth=1, mixer=Pooling, stride=2),
        Stage(dim=16, depth=1, mixer=partial(Attention, heads=2)),
    )
    return MetaFormer(stages, channels=1, classes=10)


def create() -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The trained model and an example input [1, 1, 8, 8]."""
    model = build()
    data = (resources.files(__name__) / WEIGHTS).read_bytes()
    model.load_state_dict(safetensors.torch.load(data))
    return model.eval(), (torch.zeros(1, 1, 8, 8),)
