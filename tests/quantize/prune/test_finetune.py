"""Training what is left: never worse on what it did not see, and nothing else changes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgemix import rewrites, sources
from edgemix.errors import InputError
from edgemix.program import Origin, Program, Step
from edgemix.quantize.prune.axes import units_of
from edgemix.quantize.prune.cut import cut
from edgemix.quantize.prune.finetune import finetune, learn
from edgemix.quantize.prune.prune import prune
from edgemix.quantize.prune.recipe import Pruning

_SAMPLES = 120


def _pair(outputs: int = 3) -> tuple[Program, Program, Tensor]:
    """A small model, what is left of it, and samples."""
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(6, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 16), nn.ReLU(),
        nn.Linear(16, outputs),
    )  # fmt: skip
    whole = rewrites.standard(Program.trace(module, (torch.randn(1, 6),), Origin("a test")))
    units = units_of(whole)
    keep = units.everything()
    for group in units.groups:
        keep[group.units[::2]] = False
    return whole, cut(whole, units, keep, Step("prune")), torch.randn(_SAMPLES, 6)


def _error(whole: Program, small: Program, samples: Tensor) -> float:
    (expected,), (found,) = whole.run(samples), small.run(samples)
    return float((expected - found).square().mean())


@pytest.mark.parametrize("taught", ["classes", "values", "nothing"])
def test_it_comes_nearer_to_the_whole_program(taught: str) -> None:
    whole, small, samples = _pair()
    (outputs,) = whole.run(samples)
    labels = {"classes": outputs.argmax(1), "values": outputs, "nothing": None}[taught]
    made = finetune(whole, small, samples, labels, 8)
    if taught == "classes":
        before, after = (
            nn.functional.cross_entropy(p.run(samples)[0], labels) for p in (small, made)
        )
        assert after < before
    else:
        assert _error(whole, made, samples) < _error(whole, small, samples)
    assert made.parameters == small.parameters
    assert [step.name for step in made.history][-2:] == ["prune", "finetune"]


def test_programs_given_stay_as_they_are() -> None:
    whole, small, samples = _pair()
    before = whole.digest, small.digest
    twins = [finetune(whole, small, samples, None, 1) for _ in range(2)]
    fresh = [Program.from_exported(p.graph, p.origin).digest for p in (whole, small)]
    assert (*before,) == tuple(fresh)
    assert twins[0].digest == twins[1].digest


def test_no_epochs_change_nothing() -> None:
    whole, small, samples = _pair()
    made = finetune(whole, small, samples, None, 0)
    assert torch.equal(made.run(samples)[0], small.run(samples)[0])


def test_training_that_harms_is_dropped() -> None:
    weight = nn.Parameter(torch.eye(2))
    samples = torch.randn(40, 2)
    learn(lambda x: x @ weight, (weight,), samples, samples, None, 3)
    assert torch.equal(weight.detach(), torch.eye(2))


def test_training_that_diverges_is_dropped() -> None:
    weight = nn.Parameter(torch.full((2, 2), 1e18))
    before = weight.detach().clone()

    def run(x: Tensor) -> Tensor:
        return x @ torch.where(weight == before, weight * 1e-18, torch.nan)

    samples = torch.randn(40, 2)
    learn(run, (weight,), samples, torch.zeros(40, 2), None, 1)
    assert torch.equal(weight.detach(), before)


def test_a_rate_is_found_that_reaches_far() -> None:
    weight = nn.Parameter(torch.zeros(4, 4))
    samples = torch.randn(640, 4)
    learn(lambda x: x @ weight, (weight,), samples, samples, None, 3)
    assert float(weight.detach().diagonal().min()) > 0.1  # 27 steps of 1e-3 each end before 0.03


def test_labels_that_mislead_are_left_to_the_teacher() -> None:
    torch.manual_seed(0)
    samples, truth = torch.randn(200, 100), torch.randn(100, 1)
    wanted = samples @ truth
    labels = wanted + 4 * torch.randn(200, 1)
    found = []
    for told in (labels, None):
        weight = nn.Parameter(truth.clone() + 0.1)
        learn(lambda x, w=weight: x @ w, (weight,), samples, wanted, told, 20)  # type: ignore[misc]
        found.append(float((weight.detach() - truth).square().mean()))
    assert found[0] == pytest.approx(found[1])


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("told", [True, False])
def test_progress_ends_at_one(epochs: int, told: bool) -> None:
    whole, small, samples = _pair()
    heard: list[float] = []
    labels = whole.run(samples)[0] if told else None
    finetune(whole, small, samples, labels, epochs, heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1.0


def test_few_samples_and_labels_of_others_are_refused() -> None:
    whole, small, samples = _pair()
    with pytest.raises(InputError, match="too few"):
        finetune(whole, small, samples[:19], None, 1)
    with pytest.raises(InputError, match="labels have shape"):
        finetune(whole, small, samples, torch.zeros(7, dtype=torch.int64), 1)
    with pytest.raises(InputError, match="labels have shape"):
        finetune(whole, small, samples, torch.zeros(_SAMPLES, 2), 1)


def test_slopes_go_through_the_states() -> None:
    whole = rewrites.standard(sources.load("edgemix.models.tiny:linear_transformer", step=True))
    torch.manual_seed(0)
    x = torch.randn(48, 6, *whole.inputs[0].shape[1:])
    small = prune(whole, x, Pruning(budget="60%", multiple=1))
    made = finetune(whole, small, x, None, 30)
    assert made.states == small.states and made.parameters == small.parameters
    assert _error(whole, made, x) < 0.7 * _error(whole, small, x)
    labels = whole.run(x)[0][:, -1].argmax(1)
    made = finetune(whole, small, x, labels, 20)
    before, after = (nn.functional.cross_entropy(p.run(x)[0][:, -1], labels) for p in (small, made))
    assert after < before
    with pytest.raises(InputError, match="labels have shape"):
        finetune(whole, small, x, labels[:, None], 1)
