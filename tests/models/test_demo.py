"""The demo model: small, right, and trained by a script that works."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import pytest
import torch

from edgemix import data
from edgemix.errors import InputError
from edgemix.models.demo import MODELS, Factory, create, pooling
from edgemix.models.demo.train import evaluate, train
from edgemix.models.mixers.attention import Attention
from edgemix.models.mixers.pooling import Pooling


@pytest.mark.parametrize(("factory", "name"), [(create, "digits"), (pooling, "pooling")])
def test_they_are_small_and_read_digits(factory: Callable[[], Factory], name: str) -> None:
    model, _ = factory()
    assert sum(p.numel() for p in model.parameters()) < 5000
    weights = resources.files("edgemix.models.demo") / f"{name}.safetensors"
    assert len(weights.read_bytes()) < 200_000
    assert evaluate(model) >= 0.97


def test_a_few_epochs_of_the_script_learn() -> None:
    _, accuracy = train(epochs=8)
    assert accuracy > 0.7


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_script_reaches_the_shipped_accuracy(name: str) -> None:
    _, accuracy = train(name)
    assert accuracy >= 0.97


def test_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no demo model faces"):
        train("faces")


def test_pooling_does_not_count_its_padding() -> None:
    constant = torch.full((1, 2, 5, 3), 7.0)
    assert torch.equal(Pooling(2)(constant), torch.zeros(1, 2, 5, 3))


def test_attention_of_equal_tokens_is_their_value() -> None:
    torch.manual_seed(0)
    attention = Attention(4, heads=2)
    token = torch.randn(1, 4, 1, 1)
    same = attention(token.expand(1, 4, 3, 3))
    torch.testing.assert_close(same, attention(token).expand(1, 4, 3, 3))
    with pytest.raises(InputError, match="5 channels do not divide into 2 heads"):
        Attention(5, heads=2)


def test_training_and_held_out_digits_never_meet() -> None:
    assert len(data.digits("train")) + len(data.digits("heldout")) == 1797
