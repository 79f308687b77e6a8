"""Core AI as a target and as a second oracle: Apple's own interpreter against the program."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix import data, proof, rewrites, targets
from edgemix.errors import ToolError
from edgemix.models import tiny
from edgemix.program import Origin, Program, Step
from edgemix.proof import Contract
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.streaming.trace import step_program
from edgemix.targets.base import Artifact, OpPrecision, Target
from edgemix.targets.steps import Stepper

BARS = {
    "fixed8": Contract("exact"),
    "int8": Contract("lsb", 1, 1.0),
    "w4a4": Contract("lsb", 1, 1.0),
    "int16x8": Contract("lsb", 1, 1.0),
}

needs_coreai = pytest.mark.skipif(
    importlib.util.find_spec("coreai_torch") is None, reason="the extra coreai is not installed"
)


def coreai() -> Target:
    return targets.load("coreai")


def lowered(program: Program, folder: Path) -> tuple[Artifact, Path]:
    """The artifact, in a folder that it was not made in."""
    program.save(folder / "program.edgemix")
    (made := folder / "made").mkdir()
    artifact = coreai().lower(program, folder / "program.edgemix", made)
    made.rename(folder / "moved")
    return artifact, folder / "moved"


def answers(program: Program, folder: Path, *x: Tensor) -> list[np.ndarray]:
    artifact, moved = lowered(program, folder)
    found = coreai().run(artifact, moved, tuple(t.numpy() for t in x))
    assert found is not None
    return list(found)


def audited(artifact: Artifact, folder: Path) -> tuple[OpPrecision, ...]:
    precision = coreai().audit(artifact, folder)
    assert [op for op in precision if not op.kept] == []
    return precision


@needs_coreai
@pytest.mark.parametrize(
    "recipe",
    [r if r == "int8" else pytest.param(r, marks=pytest.mark.slow) for r in BARS],
)
def test_the_artifact_keeps_its_contract_and_its_arithmetic(
    recipe: str, quantized: Callable[[str], Program], held_out: data.Data, tmp_path: Path
) -> None:
    program, target = quantized(recipe), coreai()
    assert target.supports(program) == ()
    artifact, moved = lowered(program, tmp_path)
    shares: list[float] = []
    found = target.run(artifact, moved, (held_out.samples,), shares.append)
    assert found is not None
    assert shares == sorted(shares)
    assert shares[-1] <= 1.0
    expected = program.run(torch.from_numpy(held_out.samples))[0].numpy()
    fidelity = proof.compare(expected, found[0], program.output_encodings[0], BARS[recipe])
    assert fidelity.passed, fidelity
    assert fidelity.identical > (0.9 if recipe == "int16x8" else 0.999)
    assert fidelity.worst_lsb is not None
    assert fidelity.worst_lsb <= (4 if recipe == "int16x8" else 1)  # of 65,536, of 256
    precision = audited(artifact, moved)
    assert {op.achieved for op in precision} == {"float between integers"}
    assert sum(op.op == "conv2d" for op in precision) >= 9
    for path in moved.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path


@needs_coreai
def test_a_float_program_is_the_same_to_rounding_and_reads_as_float(
    float_program: Program, held_out: data.Data, tmp_path: Path
) -> None:
    artifact, moved = lowered(float_program, tmp_path)
    found = coreai().run(artifact, moved, (held_out.samples[:50],))
    assert found is not None
    expected = float_program.run(torch.from_numpy(held_out.samples[:50]))[0].numpy()
    assert np.abs(found[0] - expected).max() < 1e-5 * np.abs(expected).max()
    assert {(op.asked, op.achieved) for op in audited(artifact, moved)} == {("float", "float")}
    assert coreai().promise(float_program) == Contract("relative", bound=1e-3)
    assert coreai().latency(artifact, moved, 1) is None  # an interpreter is no phone


@needs_coreai
def test_an_operator_that_touches_integers_on_one_side_only_is_seen(
    quantize_by: Callable[..., Program], tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(20, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    program = quantize_by(module, x, "int8")
    graph = program.module()
    (output,) = graph.graph.find_nodes(op="output")
    (result,) = output.all_input_nodes
    result.replace_all_uses_with(result.args[0].args[0])  # the last rounding is left out
    graph.graph.eliminate_dead_code()
    changed = program.with_module(graph, Step("open"))
    artifact, moved = lowered(changed, tmp_path)
    lost = [op for op in coreai().audit(artifact, moved) if not op.kept]
    assert {op.achieved for op in lost} == {"float"}
    assert "conv2d_1" in {op.name for op in lost}


class Misread(nn.Module):
    """What coreai-torch 0.4.3 refuses, or lowers to something else without a word.

    In the end outputs that are one value, and an input: it tells outputs by the node's name.
    """

    names = (
        "inner windows", "round up", "both", "one axis", "alpha", "minus", "nearest", "doubled",
        "whole", "elu", "variance", "largest", "pooled", "once more", "the input",
    )  # fmt: skip

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pool, last = functional.avg_pool2d, x.contiguous(memory_format=torch.channels_last)
        mean = functional.adaptive_avg_pool2d(last, 1)
        return (
            pool(x, 3, 1, 1, count_include_pad=False), pool(x, 2, 2, ceil_mode=True),
            pool(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
            functional.avg_pool1d(x[:, 0], 3, 1, 1, count_include_pad=False),
            torch.add(x, x.abs(), alpha=0.5), torch.sub(x, x.abs(), alpha=2),
            functional.interpolate(x, size=(5, 20), mode="nearest"),
            functional.interpolate(x, scale_factor=2, mode="nearest"), (x * 10).long().float(),
            functional.elu(x), x.std(1), functional.adaptive_max_pool2d(x, 1), mean, mean, x,
        )  # fmt: skip


@needs_coreai
def test_what_the_converter_refuses_or_misreads_computes_as_in_torch(tmp_path: Path) -> None:
    x = torch.randn(1, 4, 9, 11, generator=torch.Generator().manual_seed(0))
    program = Program.trace(Misread(), (x,), Origin("test"))
    wrong = {}
    for name, expected, got in zip(
        Misread.names, Misread()(x), answers(program, tmp_path, x), strict=True
    ):
        assert expected.shape == got.shape, name
        error = float(np.abs(expected.numpy() - got).max())
        if error > 1e-6 * float(expected.abs().max()):
            wrong[name] = error
    assert wrong == {}


@needs_coreai
@pytest.mark.slow
def test_weights_of_four_bits_and_of_groups_are_stored_as_such(
    quantize_by: Callable[..., Program], tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 8)).eval()
    x = torch.randn(40, 256, generator=torch.Generator().manual_seed(0))
    weights = Recipe.load("w4a8").weights
    assert weights is not None
    grouped = weights.model_copy(update={"granularity": "per_group", "group": 64})
    sizes = {}
    for name, rule in (("four", weights), ("groups", grouped)):
        program = quantize_by(module, x, "w4a8", ends=None, weights=rule)
        (folder := tmp_path / name).mkdir()
        artifact, moved = lowered(program, folder)
        found = coreai().run(artifact, moved, (x.numpy(),))
        assert found is not None
        encoding = program.output_encodings[0]
        assert encoding is not None
        steps = encoding.integers(program.run(x)[0].numpy()) - encoding.integers(found[0])
        assert np.abs(steps).max() <= 1, name
        assert artifact.facts["operations"]["blockwise_shift_scale"] == 2
        sizes[name] = sum(p.stat().st_size for p in moved.rglob("*") if p.is_file())
    assert 256 * 264 > sizes["groups"] > sizes["four"] > 256 * 264 / 2


@needs_coreai
@pytest.mark.parametrize(
    "factory",
    [
        pytest.param(f, marks=[] if f is tiny.gru else [pytest.mark.slow], id=f.__name__)
        for f in tiny.FACTORIES
    ],
)
def test_states_are_taken_and_given_back_to_the_last_bit(
    factory: tiny.Factory, tmp_path: Path
) -> None:
    recipe = Recipe.load("fixed8")
    module, example = factory()
    program = rewrites.standard(step_program(module, example, Origin("test")), recipe.split)
    shape = (2, 300, *program.inputs[0].shape[1:])
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    quantized = quantize(program, calibrate(program, [x]), recipe)
    artifact, moved = lowered(quantized, tmp_path)
    names = [b.name for b in (*artifact.takes, *artifact.gives)]
    assert names == [s.name for s in (*quantized.takes, *quantized.gives)]
    found = coreai().run(artifact, moved, (x.numpy(),))
    assert found is not None
    expected = quantized.rollout(x)
    for a, b in zip((*expected.outputs, *expected.states), found, strict=True):
        assert np.array_equal(a.numpy(), b)
    audited(artifact, moved)
    with Stepper(coreai(), artifact, moved) as stepper:
        for _ in range(2):
            stepper.reset()
            for t in range(5):
                (y,) = stepper.step(x[:1, t].numpy())
                assert np.array_equal(y, expected.outputs[0][:1, t].numpy())


class Refused(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = torch.fft.fft2(x).real + x.sort(-1).values
        return y.index_put((torch.tensor([0]), torch.tensor([2])), torch.ones(6))


def test_what_it_cannot_take_is_said_before_any_work() -> None:
    program = Program.trace(Refused(), (torch.zeros(1, 4, 6),), Origin("test"))
    found = {
        str(f.where).partition(" ")[0]: f"{f.why}; {f.remedy}" for f in coreai().supports(program)
    }
    assert found == {
        "fft_fft2": "Core AI has no Fourier transform; use a matrix product",
        "sort": "Core AI's converter has no sort; take topk where a few are enough",
        "index_put": "Core AI's interpreter crashes on it; write the new values with cat or where",
    }


@needs_coreai
@pytest.mark.slow
def test_a_crash_of_the_interpreter_is_an_error_with_a_message(tmp_path: Path) -> None:
    class Crashes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.index_put((torch.tensor([0]), torch.tensor([2])), torch.ones(6))

    program = Program.trace(Crashes(), (torch.zeros(1, 4, 6),), Origin("test"))
    artifact, moved = lowered(program, tmp_path)
    with pytest.raises(ToolError, match="crashed"):
        coreai().run(artifact, moved, (np.zeros((1, 4, 6), np.float32),))
