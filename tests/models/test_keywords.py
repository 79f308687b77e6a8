"""The keyword spotters: their shipped weights hear, and training starts to learn."""

from __future__ import annotations

import pytest
import torch

from edgemix.data import speech
from edgemix.models import keywords
from edgemix.models.keywords import train
from edgemix.models.spiking.delays import DelayedLinear
from edgemix.models.spiking.neurons import LIF, AdaptiveLIF, fires, spike_counts
from edgemix.streaming.protocol import by_steps


@pytest.fixture(scope="module")
def utterances() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = speech.kept(240, 11, "heldout")
    return torch.from_numpy(x), torch.from_numpy(y)


@pytest.mark.parametrize("name", keywords.MODELS)
def test_speakers_that_were_never_heard_are_understood(
    name: str, utterances: tuple[torch.Tensor, torch.Tensor]
) -> None:
    model = keywords.trained(name)
    x, y = utterances
    with torch.no_grad():
        whole = model(x)
        stepped, _ = by_steps(model, x)
    assert float((whole[:, -1].argmax(1) == y).float().mean()) > 0.95
    assert float((stepped[:, -1].argmax(1) == y).float().mean()) > 0.95
    assert sum(p.numel() for p in model.parameters()) * 4 < 1_000_000


def test_few_neurons_fire(utterances: tuple[torch.Tensor, torch.Tensor]) -> None:
    counts = spike_counts(keywords.trained("spiking"), utterances[0])
    assert len(counts) == 6
    fired, places = (sum(c[i] for c in counts.values()) for i in (0, 1))
    assert 0.02 < fired / places < 0.5


@pytest.mark.parametrize("name", keywords.MODELS)
def test_training_starts_to_learn(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "evaluate", lambda model: 0.0)
    model, _ = train.train(name, epochs=4, count=1200)
    x, y = speech.kept(1200, train.SEED, "train")
    with torch.no_grad():
        found = model(torch.from_numpy(x))[:, -1].argmax(1).numpy()
    assert float((found == y).mean()) > 3 / len(speech.CLASSES)


def test_a_neuron_charges_fires_and_resets() -> None:
    x = torch.tensor([0.6, 0.6, 0.6, 0.0, 2.5]).reshape(1, 5, 1)
    soft, state = by_steps(LIF(1, leak=0.5), x)
    assert soft.flatten().tolist() == [0, 0, 1, 0, 1]  # 0.6, 0.9, 1.05, 0.025, 2.5125
    assert float(state["membrane"]) == pytest.approx(1.5125, abs=1e-6)  # type: ignore[arg-type]
    hard, state = by_steps(LIF(1, leak=0.5, reset="zero"), x)
    assert hard.flatten().tolist() == [0, 0, 1, 0, 1]
    assert float(state["membrane"]) == 0.0  # type: ignore[arg-type]
    tie, _ = by_steps(LIF(1, leak=0.0), torch.tensor([0.5, 0.5]).reshape(1, 2, 1))
    assert tie.flatten().tolist() == [0, 1]  # the threshold itself fires


def test_a_threshold_rises_with_spikes() -> None:
    x = torch.full((1, 40, 1), 1.2)
    plain, _ = by_steps(LIF(1, leak=0.5), x)
    adapted, _ = by_steps(AdaptiveLIF(1, leak=0.5, adaptation=1.0), x)
    assert adapted.sum() < plain.sum()


def test_the_surrogate_is_the_derivative_of_an_arctangent() -> None:
    v = torch.tensor([0.0, 0.5, 1.0, 2.0], requires_grad=True)
    spikes = fires(v, 1.0, training=True)
    spikes.sum().backward()
    assert spikes.tolist() == [0, 0, 1, 1]
    assert v.grad is not None
    expected = 1 / (1 + (torch.pi * (v.detach() - 1)) ** 2)
    torch.testing.assert_close(v.grad, expected)


def test_a_learned_delay_is_one_tap_when_it_is_used() -> None:
    layer = DelayedLinear(2, 1, 5)
    with torch.no_grad():
        layer.delay.copy_(torch.tensor([[[0.2], [2.6]]]))
        layer.weight.copy_(torch.tensor([[[1.0], [10.0]]]))
    layer.eval()
    x = torch.zeros(1, 8, 2)
    x[0, 1] = 1.0
    with torch.no_grad():
        assert layer(x).flatten().tolist() == [0, 1, 0, 0, 10, 0, 0, 0]
        layer.train()
        spread = layer(x).flatten()
    assert spread.sum() == pytest.approx(11, rel=0.01)
    assert int((spread > 0.01).sum()) > 4
