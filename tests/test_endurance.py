"""Long streams: how they are made, and what counts as an error that grows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgemix import endurance
from edgemix.encoding import Encoding
from edgemix.endurance import Growth
from edgemix.errors import InputError
from edgemix.models import tiny
from edgemix.program import Origin
from edgemix.rollout import Rollout
from edgemix.streaming.trace import step_program


def test_samples_are_put_behind_each_other() -> None:
    samples = np.arange(5 * 4 * 2, dtype=np.float32).reshape(5, 4, 2)
    streams = endurance.stream(samples, 10)
    assert streams.shape == (2, 10, 2)
    assert torch.equal(streams.reshape(20, 2), torch.from_numpy(samples.reshape(20, 2)))
    assert endurance.stream(samples, 8, most=1).shape == (1, 8, 2)
    again = endurance.stream(samples, 50)  # too few: they come again
    assert again.shape == (1, 50, 2)
    assert torch.equal(again[0, 20:40], again[0, :20])


def test_growth_is_a_share_of_the_state() -> None:
    program = step_program(*tiny.gru(), Origin("test"))
    shape = (2, 200, 1, 8)
    real = Rollout((torch.ones(2, 200, 1, 8),), (torch.full((*shape[:2], 8), 2.0),))
    steps = torch.arange(200.0).reshape(1, 200, 1)
    for drift, bounded in ((0.02 + 0 * steps, True), (1e-5 * steps**2, False)):
        found = Rollout(real.outputs, (real.states[0] + drift,))
        (growth,) = endurance.growth(program, real, found)
        assert len(growth.steps) == len(growth.error) == endurance.POINTS
        assert growth.steps[-1] == 200
        first = float(drift.flatten()[:2].square().mean().sqrt()) / 2
        assert growth.error[0] == pytest.approx(first, abs=1e-6)
        assert growth.bounded == bounded
    with pytest.raises(InputError, match="shows no growth"):
        endurance.growth(program, Rollout((torch.ones(1, 1, 8),), ()), real)


def test_bounded_means_that_the_second_half_is_hardly_worse() -> None:
    steps = tuple(range(1, 11))
    assert Growth("v", 16, steps, (0.1,) * 10).bounded
    assert Growth("v", 16, steps, (0.0,) * 10).bounded
    assert Growth("v", 16, steps, (0.1,) * 5 + (0.19,) * 5).bounded
    assert not Growth("v", 16, steps, (0.1,) * 5 + (0.21,) * 5).bounded
    assert Growth("v", 16, steps, (0.1,) * 7 + (0.9,) + (0.1,) * 2).bounded  # and gone again


def test_the_last_step_counts_in_lsb() -> None:
    encoding = Encoding.per_tensor(0.25, 0, qmin=-32768, qmax=32767, dtype="int16")
    expected = torch.zeros(1, 3, 4)
    found = np.zeros((1, 3, 4), np.float32)
    found[0, 1] = 5.0  # not the last step
    assert endurance.last_step_lsb((expected,), (found,), (encoding,)) == 0
    found[0, 2, 1] = -0.5
    assert endurance.last_step_lsb((expected,), (found,), (encoding,)) == 2
    assert endurance.last_step_lsb((expected + 1,), (found + 1,), (None,)) > 1000
