"""Tiny models of every family: small, awake, and programs that give what they give."""

from __future__ import annotations

import importlib

import pytest
import torch
from torch import nn

from edgemix import rewrites
from edgemix.models.lively import enliven, lively, see
from edgemix.models.presets import baselines, iformer
from edgemix.models.presets.base import Factory
from edgemix.program import Origin, Program
from edgemix.systems.catalog import systems

TINY = {row.name: row.source for row in systems() if row.group == "tiny" and not row.memory}
TINY["randformer"] = f"{baselines.__name__}:{baselines.tiny_random.__name__}"


def made(source: str) -> Factory:
    place, _, name = source.partition(":")
    factory: Factory = getattr(importlib.import_module(place), name)()
    return factory


@pytest.mark.parametrize("name", TINY)
def test_a_tiny_model_is_small_and_its_program_gives_what_it_gives(name: str) -> None:
    module, (example,) = made(TINY[name])
    assert sum(p.numel() for p in module.parameters()) < 100_000
    assert not module.training
    program = rewrites.standard(Program.trace(module, (example,), Origin(name)))
    x = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x)
    # It looks at its input: what the outputs change by is no small part of them.
    assert float(expected.std(0).mean()) > 0.05 * float(expected.abs().mean())
    torch.testing.assert_close(program.run(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_a_tiny_model_is_the_same_every_time_and_leaves_the_generator_alone() -> None:
    state = torch.random.get_rng_state()
    first, second = (iformer.tiny()[0].state_dict() for _ in "12")
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_enlivening_wakes_gains_and_spares_what_is_never_trained() -> None:
    module = nn.Module()
    module.gain = nn.Parameter(torch.full((64, 1, 1), 1e-6))
    module.fixed = nn.Parameter(torch.ones(4, 4), requires_grad=False)
    module.matrix = nn.Parameter(torch.zeros(256, 64))
    enliven(module, spread=2.0)
    assert 0.2 < float(module.gain.detach().mean()) < 0.4
    assert torch.equal(module.fixed, torch.ones(4, 4))
    assert float(module.matrix.detach().std()) == pytest.approx(2.0 / 8, rel=0.05)


def test_norms_have_the_statistics_of_what_they_see() -> None:
    module, x = nn.Sequential(nn.BatchNorm1d(3)), 5.0 + torch.randn(100, 3)
    see(module, x)
    torch.testing.assert_close(module[0].running_mean, x.mean(0))
    assert not module.training
    assert lively(lambda: nn.Linear(2, 2), (2,))[1][0].shape == (1, 2)
