"""One graph for several input shapes: what is found to change, changed, left open and refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import reshaping, rewrites, targets
from edgemix.errors import InputError, UnsupportedError
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.shapes import parse
from edgemix.targets.coreml.shipping import Shipping


class Listener(nn.Module):
    """Convolution and attention over [n, t, c], whatever t is; then two halves, or the mean."""

    def __init__(self, halves: bool = True) -> None:
        super().__init__()
        self.halves = halves
        self.conv = nn.Conv1d(6, 8, 3, padding=1)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        n, t, _ = x.shape
        x = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        q, k, v = self.qkv(x).reshape(n, t, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + (torch.softmax(q @ k.transpose(-2, -1), -1) @ v).transpose(1, 2).reshape(n, t, 8)
        return self.out(x[:, : t // 2] + x[:, t - t // 2 :] if self.halves else x[:, 2:t].mean(1))


class Placed(nn.Module):
    """Adds positions: a constant that depends on the length."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.arange(x.shape[1])[:, None]


class Choosing(nn.Module):
    """Computes something else on long inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.exp() if x.shape[1] > 20 else x.tanh()


def traced(module: nn.Module, *shape: int) -> Program:
    program = Program.trace(module.eval(), (torch.zeros(shape),), Origin("test"))
    return rewrites.standard(program)


def test_shapes_are_parsed() -> None:
    assert parse("1x50x40, 1x100x40,1x50x40") == ((1, 50, 40), (1, 100, 40))
    for wrong in ("", "1x", "1x0", "ax3", "1×5"):
        with pytest.raises(InputError, match="no input shapes"):
            parse(wrong)
    with pytest.raises(InputError, match="different numbers of axes"):
        parse("1x5,1x5x2")


@pytest.mark.parametrize("length", [2, 12, 31, 200])
def test_a_program_becomes_that_of_another_shape(length: int) -> None:
    torch.manual_seed(0)
    module = Listener()
    program, other = traced(module, 1, 20, 6), traced(module, 1, length, 6)
    change = reshaping.reshaped(program, other)
    assert change.shape == (1, length, 6)
    x = torch.randn(3, length, 6, generator=torch.Generator().manual_seed(1))
    found = reshaping.at(program, change)
    assert torch.equal(found.run(x)[0], other.run(x)[0])
    assert found.outputs[0].shape == other.outputs[0].shape == (1, length // 2, 5)


def test_what_is_no_whole_number_is_refused() -> None:
    torch.manual_seed(0)
    with pytest.raises(
        UnsupportedError, match="input of 1×30×6 needs another graph: add.* a constant"
    ):
        reshaping.reshaped(traced(Placed(), 1, 20, 6), traced(Placed(), 1, 30, 6))
    with pytest.raises(UnsupportedError, match="input of 1×30×6 needs another graph: .*tanh.*exp"):
        reshaping.reshaped(traced(Choosing(), 1, 20, 6), traced(Choosing(), 1, 30, 6))


def test_samples_are_cut_and_repeated() -> None:
    x = torch.arange(12.0).reshape(2, 3, 2)
    assert torch.equal(reshaping.fitted(x, (1, 2, 2)), x[:, :2])
    assert torch.equal(reshaping.fitted(x, (1, 5, 2)), torch.cat([x, x[:, :2]], 1))


@pytest.mark.parametrize("recipe", [pytest.param("float32", marks=pytest.mark.slow), "int8-exact"])
def test_a_package_takes_the_shapes_that_it_lists(
    recipe: str, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module, generator = Listener(halves=False), torch.Generator().manual_seed(1)
    program = traced(module, 1, 20, 6)
    change = reshaping.reshaped(program, traced(module, 1, 33, 6))
    x = torch.randn(8, 33, 6, generator=generator)
    chosen = Recipe.load(recipe)
    coded = quantize(program, calibrate(program, [x[:, :20]]), chosen)
    target = targets.load("coreml", shipping=Shipping(shapes=(change,)))
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(coded, program_file(coded), folder)
    assert artifact.facts["further shapes"] == [[1, 33, 6]]
    for of, samples in ((coded, x[:, :20]), (reshaping.at(coded, change), x)):
        found = target.run(artifact, folder, (samples.numpy(),))
        assert found is not None
        expected = of.run(samples)[0].numpy()
        assert found[0].shape == expected.shape
        encoding = coded.output_encodings[0]
        step = 1e-5 if encoding is None else encoding.scale[0]
        assert np.abs(found[0] - expected).max() <= step * 1.01


def test_a_place_that_two_shapes_change_is_opened_once() -> None:
    torch.manual_seed(0)
    module = Listener(halves=False)
    program = traced(module, 1, 20, 6)
    changes = [reshaping.reshaped(program, traced(module, 1, n, 6)) for n in (33, 50)]
    graph = program.module()
    reshaping.opened(graph, changes)
    x = torch.randn(1, 41, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(g.flat(graph)(x)[0], module(x))


def test_what_a_package_cannot_leave_open_is_refused(
    program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = Listener()
    program = traced(module, 1, 20, 6)
    change = reshaping.reshaped(program, traced(module, 1, 33, 6))
    target = targets.load("coreml", shipping=Shipping(shapes=(change,)))
    with pytest.raises(UnsupportedError, match="1×33×6 needs another graph: slice.* cannot leave"):
        target.lower(program, program_file(program), tmp_path)
