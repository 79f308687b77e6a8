"""What would meet a budget: the gentlest option, or the floor, said as an estimate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from edgemix import data, rewrites, targets
from edgemix.diagnosis import multiply_accumulates
from edgemix.latency.base import Latency
from edgemix.latency.budget import Budget, Figures
from edgemix.latency.units import storage
from edgemix.program import Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.recipe import Recipe
from edgemix.remedies import Advisor, Option, advice, nearest, weight_bits, weight_bytes

OPTIONS = (Option("float32", 40e3), Option("int8", 10e3), Option("w4a8", 6e3))


def test_the_gentlest_that_fits_is_nearest() -> None:
    assert nearest(OPTIONS, 12e3) == OPTIONS[1]
    assert nearest(OPTIONS, 40e3) == OPTIONS[0]
    assert nearest(OPTIONS, 5e3) is None


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (12e3, "int8 would meet it: about 10 kB by estimate (bits)"),
        (5e3, "no recipe known meets it: the least is about 6 kB with w4a8, by estimate (bits); a smaller model would"),
    ],
)  # fmt: skip
def test_advice(limit: float, words: str) -> None:
    assert advice(Option("fixed8", 50e3), OPTIONS, limit, storage, "bits") == words


def test_where_the_recipe_in_use_is_the_least_a_smaller_model_is_left() -> None:
    said = advice(Option("palette2", 3e3), OPTIONS, 1e3, storage, "bits")
    assert said == "no recipe known is below palette2 (bits): a smaller model would meet it"


@pytest.mark.parametrize(
    ("recipe", "target", "bits"),
    [
        ("int8", "onnx", 8), ("w4a8", "onnx", 8), ("w4a8", "coreai", 4), ("w4a8", "coreml", 8),
        ("w4-blocks", "coreml", 4.5), ("palette2", "coreml", 2), ("palette2", "tflite", 32),
        ("float16", "onnx", 32), ("float16", "coreml", 16), ("float32", "coreml", 32),
        ("mixed", "coreai", 5.2), ("mixed", "tflite", 8),
    ],
)  # fmt: skip
def test_bits_that_targets_store(recipe: str, target: str, bits: float) -> None:
    assert weight_bits(Recipe.load(recipe), target) == pytest.approx(bits)


@dataclass(frozen=True)
class Phone:
    name: str = "phone"
    targets: tuple[str, ...] = ("onnx",)


@dataclass(frozen=True)
class Guess:
    latency: Latency
    low_ms: float = 0.0
    high_ms: float = 0.0
    notes: tuple[str, ...] = ()


class ByRecipe:
    """Whoever quantizes more waits less."""

    def device(self, text: str) -> Phone:
        return Phone(text)

    def estimate(self, program: Program, device: object, target: str) -> Guess:
        ms = {"int8": 2.0, "w8": 5.0}.get(program.recipe, 9.0)
        return Guess(Latency("estimated", "phone", "a table", ms, ms, ms, 0, 0, 1))


@pytest.fixture
def advisor(float_program: Program) -> Callable[..., Advisor]:
    program = rewrites.standard(float_program)
    calibration = calibrate(program, data.digits("train").batches(64, 64))

    def make(used: str, size: int, ms: float = 9.0) -> Advisor:
        estimator, recipe = ByRecipe(), Recipe.load(used)
        on = {"phone": Guess(Latency("estimated", "phone", "a table", ms, ms, ms, 0, 0, 1))}
        return Advisor(
            program, program, recipe, calibration, {"onnx": targets.load("onnx")},
            {"onnx": Figures(size=size, on=on)}, {"phone": Phone()}, estimator,
        )  # fmt: skip

    return make


def test_sizes_of_a_real_program(advisor: Callable[..., Advisor]) -> None:
    known = advisor("float32", 19_718)
    weights = weight_bytes(known.program, known.used, "onnx")
    assert weights == pytest.approx(4 * 3875, rel=0.01)
    said = known.advice(Budget(None, "size", 13e3), "onnx")
    assert said.startswith("w8 would meet it: about 10")  # 11.2 kB when it is built
    said = known.advice(Budget(None, "size", 1e3), "onnx")
    assert said.startswith("no recipe known meets it: the least is about")


def test_pruning_is_named_where_no_recipe_suffices(advisor: Callable[..., Advisor]) -> None:
    class ByWork(ByRecipe):
        def estimate(self, program: Program, device: object, target: str) -> Guess:
            ms = 1.0 + multiply_accumulates(program) / 1e5
            return Guess(Latency("estimated", "phone", "a table", ms, ms, ms, 0, 0, 1))

    program = advisor("int8", 22_814).program
    ms = ByWork().estimate(program, None, "").latency.p50_ms
    known = replace(advisor("int8", 22_814, ms), estimator=ByWork())
    said = known.advice(Budget(None, "latency", 0.9 * ms, device="phone"), "onnx")
    assert said.startswith("int8 with --prune 75% would meet it: about")
    said = known.advice(Budget(None, "latency", 0.1, device="phone"), "onnx")
    assert said.startswith("no recipe known meets it: the least is about")
    assert "int8 with --prune 25%" in said or "int8 with --prune 35%" in said


def test_times_on_a_device(advisor: Callable[..., Advisor]) -> None:
    known = advisor("float32", 19_718)
    budget = Budget(None, "latency", 6.0, device="phone")
    assert known.advice(budget, "onnx") == "w8 would meet it: about 5 ms by estimate (for phone)"
    said = known.advice(Budget(None, "latency", 1.0, device="phone"), "onnx")
    assert said.startswith("no recipe known meets it: the least is about 2 ms with int8")


def test_times_on_this_machine_are_scaled_from_what_was_measured(
    advisor: Callable[..., Advisor],
) -> None:
    known = advisor("float32", 19_718)
    slow = Latency("measured", "this host", "a clock", 90.0, 90.0, 90.0, 200, 20, 1)
    known = replace(known, figures={"onnx": Figures(slow, size=19_718)})
    said = known.advice(Budget("onnx", "latency", 60.0), "onnx")
    assert said == "w8 would meet it: about 50 ms by estimate (scaled from what was measured)"


def test_what_nothing_estimates_is_said(advisor: Callable[..., Advisor]) -> None:
    known = replace(advisor("int8", 22_814), estimator=None)
    assert "nothing estimates times on this machine" in known.advice(
        Budget("onnx", "latency", 1.0), "onnx"
    )
    assert "nothing estimates LUT" in known.advice(Budget(None, "lut", 1.0), "onnx")
