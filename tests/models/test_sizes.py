"""Inputs of other sizes than a model's weights are made for: said in words, by every such layer."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn

from edgemix.errors import InputError
from edgemix.models.mixers.fourier import AdaptiveFilter, GlobalFilter
from edgemix.models.mixers.inception import Inception
from edgemix.models.mixers.random_matrix import RandomMatrix
from edgemix.models.mixers.token_mlp import TokenMlp
from edgemix.models.presets.esc_transformer import SoundTransformer
from edgemix.models.series.patches import Patches
from edgemix.program import Origin, Program

CASES: list[tuple[nn.Module, tuple[int, ...], tuple[int, ...], str]] = [
    (RandomMatrix(4, 6), (4, 2, 3), (4, 3, 3), "RandomMatrix is made for positions of 6, not of 9"),
    (TokenMlp(4, 6), (4, 2, 3), (4, 2, 2), "TokenMlp is made for positions of 6, not of 4"),
    (GlobalFilter(4, 2, 3), (4, 2, 3), (4, 3, 2), "GlobalFilter is made for maps of 2×3, not of 3×2"),
    (AdaptiveFilter(4, 2, 3), (4, 2, 3), (4, 2, 4), "AdaptiveFilter is made for maps of 2×3, not of"),
    (Patches(8, 4, 5), (2, 8), (2, 9), "Patches is made for series of 8, not of 9"),
    (Patches(8, 4, 5, 2), (2, 8), (2, 10), "Patches is made for series of 8, not of 10"),
    (SoundTransformer(3, 5, 2), (5, 3), (6, 3), "SoundTransformer is made for sounds of 5×3, not of"),
    (Inception(8, 2, 2, 2), (8, 4, 6), (8, 4, 7), "a map of 4×7 does not divide into windows of 2"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("layer", "right", "wrong", "message"), CASES, ids=[f"{c[0]._get_name()}-{c[2]}" for c in CASES]
)
def test_another_size_is_said(
    layer: nn.Module, right: tuple[int, ...], wrong: tuple[int, ...], message: str
) -> None:
    assert layer(torch.zeros(1, *right)).isfinite().all()
    with pytest.raises(InputError, match=re.escape(message)):
        layer(torch.zeros(1, *wrong))


def test_tracing_passes_a_layers_own_words_on() -> None:
    with pytest.raises(InputError, match="^RandomMatrix is made for positions of 6, not of 9"):
        Program.trace(RandomMatrix(4, 6), (torch.zeros(1, 4, 3, 3),), Origin("test"))
