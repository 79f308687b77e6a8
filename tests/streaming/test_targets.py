"""Every model with a memory on every target, step by step for a thousand steps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgemix import endurance, rewrites, targets
from edgemix.errors import InputError
from edgemix.models import tiny
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.streaming.trace import step_program
from edgemix.streaming.unroll import First, unrolled
from edgemix.targets.fpga.hardware import Hardware
from edgemix.targets.steps import Stepper

STEPS = 1000
FIRST = {
    ("chunked_attention", "hls4ml"), ("gru", "tflite"), ("lif", "onnx"), ("lif", "rtl"),
}  # fmt: skip
"""What every test run looks at; the others take minutes."""
EXACT = ("hls4ml", "rtl")


def sequences(program: Program, count: int, steps: int, seed: int) -> torch.Tensor:
    shape = (count, steps, *program.inputs[0].shape[1:])
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def made(factory: tiny.Factory, recipe_name: str) -> tuple[Program, Program]:
    """The float and the quantized program."""
    recipe = Recipe.load(recipe_name)
    module, example = factory()
    program = step_program(module, example, Origin(factory.__name__))
    program = rewrites.standard(program, recipe.split)
    calibration = calibrate(program, [sequences(program, 2, STEPS, 1)])
    return program, quantize(program, calibration, recipe)


@pytest.mark.parametrize(
    ("factory", "target"),
    [
        pytest.param(
            f, t, id=f"{f.__name__}-{t}",
            marks=[] if (f.__name__, t) in FIRST else [pytest.mark.slow],
        )
        for f in tiny.FACTORIES
        for t in ("onnx", "tflite", "hls4ml", "rtl")
    ],
)  # fmt: skip
def test_a_thousand_steps(
    factory: tiny.Factory, target: str, tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    program, quantized = made(factory, "fixed8")
    x = sequences(program, 1, STEPS, 2)
    real, expected = program.rollout(x), quantized.rollout(x)
    chosen = targets.load(target)
    assert chosen.supports(quantized) == ()
    folder = tmp_path / target
    folder.mkdir()
    artifact = chosen.lower(quantized, program_file(quantized), folder)
    found = chosen.run(artifact, folder, (x.numpy(),))
    assert found is not None
    outputs, states = found[: len(expected.outputs)], found[len(expected.outputs) :]
    worst = endurance.last_step_lsb(expected.states, states, quantized.state_encodings)
    assert worst <= (0 if target in EXACT else 1)
    if target in EXACT:
        for a, b in zip((*expected.outputs, *expected.states), found, strict=True):
            assert np.array_equal(a.numpy(), b)
    encoding = quantized.output_encodings[0]
    assert encoding is not None
    steps = np.abs(encoding.integers(expected.outputs[0].numpy()) - encoding.integers(outputs[0]))
    assert float(np.mean(steps <= 1)) > 0.999
    assert all(g.bounded for g in endurance.growth(quantized, real, expected))


@pytest.mark.parametrize(
    "target",
    ["onnx", "rtl", *(pytest.param(t, marks=pytest.mark.slow) for t in ("tflite", "hls4ml"))],
)
def test_a_stepper_holds_the_state_and_gives_it_back(
    target: str, tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    _, quantized = made(tiny.lif, "fixed8")
    x = sequences(quantized, 1, 20, 4)
    expected = quantized.rollout(x)
    chosen = targets.load(target)
    folder = tmp_path / target
    folder.mkdir()
    artifact = chosen.lower(quantized, program_file(quantized), folder)
    with Stepper(chosen, artifact, folder) as stepper:
        for _ in range(2):  # the second time after a reset in the middle of a stream
            stepper.reset()
            assert all(not held.any() for held in stepper.state.values())
            for t in range(12):
                (y,) = stepper.step(x[:, t].numpy())
                assert np.array_equal(y, expected.outputs[0][:, t].numpy())
            assert set(stepper.state) == {s.name for s in quantized.states}
            for spec, values in zip(quantized.states, expected.states, strict=True):
                assert np.array_equal(stepper.state[spec.name], values[:, 11].numpy())
        with pytest.raises(InputError, match=r"a step was given inputs of shape \[\(1, 5\)\]"):
            stepper.step(np.zeros((1, 5), np.float32))


def test_core_ml_holds_states_of_its_own_or_takes_them(
    tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    _, quantized = made(tiny.lif, "fixed8")
    artifact = targets.load("coreml").lower(quantized, program_file(quantized), tmp_path)
    names = [b.name for b in (*artifact.takes, *artifact.gives)]
    assert names == [s.name for s in (*quantized.takes, *quantized.gives)]
    from coremltools.models import utils

    explicit = utils.load_spec(str(tmp_path / artifact.main)).description
    assert {f.name for f in explicit.input} == {s.name for s in quantized.takes}
    assert not explicit.state
    native = utils.load_spec(str(tmp_path / "stateful.mlpackage")).description
    assert [f.name for f in native.input] == ["x"]
    assert [f.name for f in native.output] == ["output"]
    assert len(native.state) == len(quantized.states)
    held = artifact.facts["states held by Core ML"]
    assert held["states"] == "3 read, 3 written, float16"


def test_float_programs_step_on_runtimes_too(
    tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    module, example = tiny.mamba()
    program = rewrites.standard(step_program(module, example, Origin("test")))
    x = sequences(program, 2, 50, 5)
    expected = program.rollout(x)
    for name in ("onnx", "tflite"):
        chosen = targets.load(name)
        (folder := tmp_path / name).mkdir()
        artifact = chosen.lower(program, program_file(program), folder)
        found = chosen.run(artifact, folder, (x.numpy(),))
        assert found is not None
        for a, b in zip((*expected.outputs, *expected.states), found, strict=True):
            np.testing.assert_allclose(a.numpy(), b, rtol=0, atol=1e-5)


def test_a_state_has_one_encoding_and_spikes_are_one_bit() -> None:
    _, quantized = made(tiny.delay_mlp, "fixed8")
    encodings = dict(
        zip((s.name for s in quantized.states), quantized.state_encodings, strict=True)
    )
    bits = {name: e.bits for name, e in encodings.items() if e is not None}
    assert bits["neuron_0_membrane"] == bits["readout_membrane"] == 16
    assert bits["synapse_0_past"] == 8  # a delay line of inputs: nothing is added up
    spikes = encodings["synapse_1_past"]
    assert spikes is not None
    assert (spikes.scale, spikes.zero_point, spikes.qmin, spikes.qmax) == ((1.0,), (0,), 0, 1)
    before = [quantized.encodings[s.name] for s in quantized.states]
    assert before == list(quantized.state_encodings)


def test_bits_of_a_state_follow_the_recipe() -> None:
    program, _ = made(tiny.lmu, "fixed8")
    calibration = calibrate(program, [sequences(program, 2, 200, 1)])
    x = sequences(program, 4, 300, 2)
    real = program.rollout(x).states[0]
    errors = {}
    for bits in (8, 12, 16):
        recipe = Recipe.load("fixed8")
        assert recipe.states is not None
        chosen = recipe.model_copy(
            update={"states": recipe.states.model_copy(update={"bits": bits})}
        )
        found = quantize(program, calibration, chosen)
        (encoding,) = found.state_encodings
        assert encoding is not None and encoding.bits == bits
        errors[bits] = float((found.rollout(x).states[0] - real).square().mean().sqrt())
    assert errors[16] < errors[8] / 2


@pytest.mark.parametrize(
    ("target", "recipe_name"),
    [
        ("onnx", "int8"),
        pytest.param("hls4ml", "fixed8", marks=pytest.mark.slow),
        pytest.param("tflite", "int8", marks=pytest.mark.slow),
    ],
)
def test_an_lstm_of_two_directions_is_deployed_unrolled(
    target: str, recipe_name: str, tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    torch.manual_seed(0)
    module = First(unrolled(nn.LSTM(3, 4, bidirectional=True, batch_first=True)))
    recipe = Recipe.load(recipe_name)
    program = Program.trace(module, (torch.zeros(1, 6, 3),), Origin("test"))
    program = rewrites.standard(program, recipe.split)
    x = torch.rand(64, 6, 3, generator=torch.Generator().manual_seed(1))
    quantized = quantize(program, calibrate(program, [x]), recipe)
    chosen = targets.load(target)
    artifact = chosen.lower(quantized, program_file(quantized), tmp_path)
    found = chosen.run(artifact, tmp_path, (x.numpy(),))
    assert found is not None
    expected = quantized.run(x)[0].numpy()
    if target in EXACT:
        assert np.array_equal(expected, found[0])
    encoding = quantized.output_encodings[0]
    assert encoding is not None
    steps = np.abs(encoding.integers(expected) - encoding.integers(found[0]))
    assert float(np.mean(steps <= 2)) > 0.95


def test_streams_of_pixels_hold_no_states() -> None:
    _, quantized = made(tiny.lif, "fixed8")
    target = targets.load("hls4ml", Hardware(interface="io_stream"))
    (finding,) = target.supports(quantized)
    assert "a step reads its states at once" in finding.why
