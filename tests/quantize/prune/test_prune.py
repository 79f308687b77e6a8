"""What goes for a budget, and what stays of the outputs."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemix import data, proof, pruning, rewrites, sources
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.latency.estimator import house
from edgemix.order import Silence
from edgemix.program import Origin, Program, Step
from edgemix.quantize.prune.axes import units_of
from edgemix.quantize.prune.choices import Importance
from edgemix.quantize.prune.cut import cut
from edgemix.quantize.prune.prune import Pruner, prune
from edgemix.quantize.prune.recipe import Goal, Pruning
from edgemix.quantize.prune.size import count

IMPORTANCE: tuple[Importance, ...] = ("refit", "hessian", "taylor", "activation", "magnitude")


@pytest.fixture(scope="module")
def demo(float_program: Program) -> Program:
    return rewrites.standard(float_program)


@pytest.fixture(scope="module")
def digits() -> data.Data:
    return data.digits("train").head(256)


def _labels(some: data.Data) -> Tensor:
    assert some.labels is not None
    return torch.from_numpy(some.labels).long()


@pytest.mark.parametrize("seed", range(3))
def test_what_is_counted_is_what_is_left(demo: Program, seed: int) -> None:
    units = units_of(demo)
    keep = units.everything()
    keep[1:] = np.random.default_rng(seed).random(units.count) < 0.6
    for group in units.groups:
        keep[group.units[0]] = True
    small = cut(demo, units, keep, Step("prune"))
    assert count(demo, units, "macs").total(keep) == multiply_accumulates(small)
    assert count(demo, units, "parameters").total(keep) == small.parameters


@pytest.mark.parametrize("importance", IMPORTANCE)
def test_budgets_are_kept_and_used(
    demo: Program, digits: data.Data, importance: Importance
) -> None:
    wanted = Pruning(budget="60%", importance=importance)
    small = prune(demo, digits.tensor(), wanted, _labels(digits))
    share = multiply_accumulates(small) / multiply_accumulates(demo)
    assert 0.5 < share <= 0.6


def test_fitting_brings_the_outputs_back(
    demo: Program, digits: data.Data, held_out: data.Data
) -> None:
    pruner = Pruner.of(demo, Pruning(), digits.tensor())
    x = held_out.tensor()
    whole = demo.run(x)[0]
    keep, made = pruner.within("macs", 0.75 * pruner.total("macs"))
    before, after = (proof.sqnr_db(whole, p.run(x)[0]) for p in (pruner.cut(keep), made))
    assert before is not None and after is not None and after > before + 6


def test_of_several_ways_the_nearest_is_taken(demo: Program, digits: data.Data) -> None:
    pruner = Pruner.of(demo, Pruning(), digits.tensor())
    limit = 0.6 * pruner.total("macs")
    x = digits.tensor()
    whole = demo.run(x)[0]

    def error(program: Program) -> float:
        return float((program.run(x)[0] - whole).square().sum())

    taken = error(pruner.within("macs", limit)[1])
    for way in pruner.curves:
        alone = replace(pruner, curves=(way,))
        assert taken <= 1.001 * error(alone.within("macs", limit)[1])


def test_parameters_are_a_budget_of_their_own(demo: Program, digits: data.Data) -> None:
    small = prune(demo, digits.tensor(), Pruning(budget="parameters=50%"))
    assert 0.4 * demo.parameters < small.parameters <= 0.5 * demo.parameters


def test_widths_stay_multiples() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(
        nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 40), nn.GELU(), nn.Linear(40, 20), nn.GELU(),
        nn.Linear(20, 4),
    )  # fmt: skip
    program = Program.trace(layers, (torch.randn(1, 8),), Origin("a test"))
    pruner = Pruner.of(program, Pruning(multiple=8), torch.randn(64, 8))
    found = {w.before: w.after for w in pruner.widths(pruner.keep("macs", 1000.0))}
    assert found[64] % 8 == 0 and found[40] % 8 == 0
    assert found[20] < 20  # narrow: it loses one at a time


def test_widths_that_are_kept_stay(demo: Program, digits: data.Data) -> None:
    names = [group.name for group in units_of(demo).groups]
    pruner = Pruner.of(demo, Pruning(keep=[names[0]]), digits.tensor())
    keep = pruner.keep("macs", 0.7 * pruner.total("macs"))
    assert names[0] not in [w.name for w in pruner.widths(keep)]


def test_unknown_patterns_are_named(demo: Program, digits: data.Data) -> None:
    with pytest.raises(InputError, match=r"no width matches layers\.9") as caught:
        Pruner.of(demo, Pruning(keep=["layers.9"]), digits.tensor())
    assert caught.value.do is not None


def test_what_cannot_be_met_says_the_floor(demo: Program, digits: data.Data) -> None:
    with pytest.raises(InputError, match=r"the budget cannot be met: \d+\.\d% is the least"):
        prune(demo, digits.tensor(), Pruning(budget="1%"))


def test_taylor_wants_labels(demo: Program, digits: data.Data) -> None:
    with pytest.raises(InputError, match="taylor needs labels"):
        prune(demo, digits.tensor(), Pruning(importance="taylor"))


def test_a_model_of_one_layer_has_nothing_to_lose() -> None:
    program = Program.trace(nn.Linear(4, 3), (torch.randn(1, 4),), Origin("a test"))
    with pytest.raises(InputError, match="no width that could shrink"):
        prune(program, torch.randn(8, 4))


def test_dead_channels_go_first_and_cost_nothing() -> None:
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        last.weight[:, 4:] = 0.0
    program = Program.trace(
        nn.Sequential(first, nn.ReLU(), last), (torch.randn(1, 6),), Origin("a test")
    )
    x = torch.randn(64, 6)
    small = prune(program, x, Pruning(budget="50%"))
    assert small.parameters < program.parameters
    assert torch.allclose(small.run(x)[0], program.run(x)[0], atol=1e-4)


def test_twins_make_up_for_each_other() -> None:
    """Of two equal channels one suffices: the other's weight moves to it."""
    torch.manual_seed(0)
    first, last = nn.Linear(6, 8), nn.Linear(8, 3)
    with torch.no_grad():
        first.weight[4:], first.bias[4:] = first.weight[:4], first.bias[:4]
    program = Program.trace(
        nn.Sequential(first, nn.GELU(), last), (torch.randn(1, 6),), Origin("a test")
    )
    x = torch.randn(256, 6)
    small = prune(program, x, Pruning(budget="50%"))
    error = proof.sqnr_db(program.run(x)[0], small.run(x)[0])
    assert error is not None and error > 40


def test_a_batch_of_zeros_is_data_too(demo: Program) -> None:
    small = prune(demo, torch.zeros(4, *demo.inputs[0].shape[1:]), Pruning(budget="80%"))
    assert all(bool(torch.isfinite(v).all()) for v in small.graph.state_dict.values())


def test_programs_with_states_are_fitted_on_the_whole_models_states() -> None:
    program = rewrites.standard(sources.load("edgemix.models.tiny:lmuformer", step=True))
    torch.manual_seed(0)
    x = torch.randn(16, 20, *program.inputs[0].shape[1:])
    pruner = Pruner.of(program, Pruning(), x)
    keep = pruner.keep("macs", 0.8 * pruner.total("macs"))
    whole = program.run(x)[0]
    before, after = (
        proof.sqnr_db(whole, p.run(x)[0]) for p in (pruner.cut(keep), pruner.made(keep))
    )
    assert before is not None and after is not None and after > before


@pytest.mark.parametrize(
    ("text", "goal"),
    [
        ("50%", Goal("macs", 0.5, "%")),
        ("parameters = 40 %", Goal("parameters", 0.4, "%")),
        ("macs=20M", Goal("macs", 20.0, "M")),
        ("size=500kB", Goal("size", 500.0, "kB")),
        ("iphone12=1.5ms", Goal("iphone12", 1.5, "ms")),
    ],
)
def test_goals(text: str, goal: Goal) -> None:
    assert Goal.parse(text) == goal


@pytest.mark.parametrize("text", ["half", "0%", "101%", "=50%", "macs=", "-3%", ""])
def test_goals_that_are_none(text: str) -> None:
    with pytest.raises(InputError):
        Goal.parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budgt = '50%'", "budgt: Extra inputs are not permitted"),
        ("budget = 'half'", "budget: no pruning budget: half"),
        ("least = 0.0", "least: Input should be greater than 0"),
        ("curve = [1.5]", "curve: shares lie between 0 and 1"),
        ("budget =", "cannot be read"),
    ],
)
def test_recipes_that_are_none(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "cut.toml"
    file.write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        Pruning.load(str(file))


def _curve(demo: Program, digits: data.Data, budget: str, **gauge: object) -> pruning.Outcome:
    asked = Pruning(budget=budget, importance="magnitude", refit=False, curve=[0.7])
    held_out = data.digits("heldout").head(100)
    made = pruning.Gauge(**gauge)  # type: ignore[arg-type]
    return pruning.pruned(demo, asked, digits, held_out, made, Silence())


def test_a_devices_time_is_a_budget(demo: Program, digits: data.Data) -> None:
    devices = {"cortex-m7": house().device("cortex-m7")}
    found = _curve(demo, digits, "cortex-m7=80%", devices=devices, estimator=house())
    whole, *_ = found.result.points
    chosen = next(p for p in found.result.points if p.chosen)
    assert chosen.times_ms["cortex-m7"] <= 0.8 * whole.times_ms["cortex-m7"]
    assert chosen.macs < whole.macs
    with pytest.raises(InputError, match="5MB is no budget of cortex-m7"):
        _curve(demo, digits, "cortex-m7=5MB", devices=devices, estimator=house())


def test_the_curve_falls_from_the_whole_model(demo: Program, digits: data.Data) -> None:
    found = _curve(demo, digits, "size=50%")
    points = found.result.points
    assert [p.macs for p in points] == sorted((p.macs for p in points), reverse=True)
    assert points[0].asked == "whole" and points[0].sqnr_db is None
    assert 4 * found.program.parameters <= 0.5 * 4 * demo.parameters
    assert sum(p.chosen for p in points) == 1


def test_what_nobody_counts_is_said(demo: Program, digits: data.Data) -> None:
    with pytest.raises(InputError, match="nothing here counts iphone12"):
        _curve(demo, digits, "iphone12=1ms")
    with pytest.raises(InputError, match="the budget size=1B cannot be met: pruning leaves"):
        _curve(demo, digits, "size=1B")
