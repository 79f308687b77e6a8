"""What data and models bring that recipes do not expect."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from edgemix import rewrites
from edgemix.batched import batched
from edgemix.errors import InputError
from edgemix.order import Order
from edgemix.program import Origin, Program
from edgemix.quantize import recipe as recipes
from edgemix.quantize import watch
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.draft import Draft
from edgemix.quantize.levels import QUALITY
from edgemix.quantize.observers import TensorStats, choose_range
from edgemix.quantize.quality import finish, improve
from edgemix.quantize.recipe import LayerException, Recipe, Rule
from edgemix.quantizing import Outcome

ALL = sorted({name for chosen in QUALITY.values() for name in chosen} | {"adaround"})


def traced(model: nn.Module, *shape: int) -> Program:
    return rewrites.standard(Program.trace(model.eval(), (torch.zeros(1, *shape),), Origin("test")))


def finished(program: Program, samples: Tensor, recipe: str = "int8") -> Program:
    """By every algorithm there is; reconstruction in its place."""
    asked = Recipe.load(recipe).model_copy(update={"algorithms": tuple(a for a in ALL if a != "reconstruct")})  # fmt: skip
    return improve(program, samples, asked).program


class Odd(nn.Module):
    """Dead channels in and out, a constant channel, and a branch that data never wakes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.last = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 4)
        with torch.no_grad():
            self.first.weight[1] = 0.0
            self.first.bias[1] = 0.0  # type: ignore[index]
            self.first.weight[2] = 0.0
            self.first.bias[2] = 0.75  # type: ignore[index]
            self.last.weight[:, 3] = 0.0
            self.last.weight[2] = 0.0

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        asleep = torch.relu(y - 1e6)
        found: Tensor = self.last((y + asleep).mean((2, 3)))
        return found


@pytest.mark.parametrize("recipe", ["int8", "w4a4", "fixed8"])
def test_dead_channels_constants_and_branches_that_sleep(recipe: str) -> None:
    program = traced(Odd(), 3, 5, 7)
    x = torch.randn(20, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    x[:, 1] = 0.25
    found = finished(program, x, recipe).run(x)[0]
    expected = program.run(x)[0]
    assert torch.isfinite(found).all()
    bound = {"int8": 0.03, "w4a4": 0.5, "fixed8": 0.1}[recipe]
    assert float((found - expected).abs().max()) < bound * float(expected.abs().max())


def test_data_that_is_all_zero_still_makes_a_program() -> None:
    program = traced(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)), 4)
    quantized = finished(program, torch.zeros(3, 4))
    assert torch.isfinite(quantized.run(torch.zeros(3, 4))[0]).all()
    assert all(e.lsb > 0 for e in quantized.encodings.values())


@pytest.mark.parametrize("samples", [1, 2])
def test_very_few_samples_work_and_are_said(samples: int) -> None:
    program = traced(nn.Sequential(nn.Linear(6, 6), nn.GELU(), nn.Linear(6, 3)), 6)
    x = torch.randn(samples, 6)
    quantized = finished(program, x)
    outcome = Outcome(program, quantized, {}, (), calibrate(program, [x]))
    (warning,) = outcome.warnings()
    assert warning.startswith(f"ranges come from {samples} sample")
    assert not list(Outcome(program, quantized, {}).warnings())


class Overflows(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.exp(x * 50.0).sqrt() - 1.0


def test_the_first_node_that_overflows_is_named() -> None:
    program = traced(Overflows(), 4)
    with pytest.raises(InputError, match=r"NaN or Inf on the calibration data\n  at: exp .*test_hard_cases"):  # fmt: skip
        calibrate(program, [torch.ones(2, 4), torch.full((1, 4), 3.0)])


def test_calibration_data_may_be_an_iterator_of_any_batches() -> None:
    program = traced(nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU()), 2, 6, 6)
    x = torch.randn(30, 2, 6, 6, generator=torch.Generator().manual_seed(0))

    def stream() -> Iterator[Tensor]:
        yield x[:1]
        yield x[1:18].contiguous(memory_format=torch.channels_last)
        yield x[18:].transpose(2, 3).contiguous().transpose(2, 3)

    assert calibrate(program, stream()).data == calibrate(program, [x]).data
    whole, parts = calibrate(program, [x]).stats, calibrate(program, stream()).stats
    for name, stats in whole.items():
        assert (stats.minimum, stats.maximum) == (parts[name].minimum, parts[name].maximum)
    dataset = torch.utils.data.TensorDataset(x)
    loader = torch.utils.data.DataLoader(dataset, batch_size=7)
    assert calibrate(program, (batch for (batch,) in loader)).data == calibrate(program, [x]).data
    with pytest.raises(InputError, match="there is no calibration data"):
        calibrate(program, [x[:0]])


def test_an_interrupted_calibration_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgemix.quantize.calibrate._SAVED_EVERY_S", 0.0)
    program = traced(nn.Sequential(nn.Linear(5, 4), nn.Sigmoid()), 5)
    batches = list(torch.randn(60, 5, generator=torch.Generator().manual_seed(0)).split(10))
    place = tmp_path / "half.safetensors"

    def torn() -> Iterator[Tensor]:
        yield from batches[:4]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calibrate(program, torn(), checkpoint=place)
    assert place.exists()
    with pytest.raises(InputError, match="was made of other data"):
        calibrate(program, [b + 1 for b in batches], checkpoint=place)
    with pytest.raises(InputError, match="was made in batches of another size"):
        calibrate(program, torch.cat(batches).split(35), checkpoint=place)
    resumed = calibrate(program, batches, checkpoint=place)
    assert not place.exists()
    straight = calibrate(program, batches)
    assert resumed.data == straight.data
    for name, stats in straight.stats.items():
        assert torch.equal(resumed.stats[name].counts, stats.counts)
        assert resumed.stats[name].maximum == stats.maximum


def test_two_calibrations_and_two_quantizations_are_the_same() -> None:
    program = traced(Odd(), 3, 5, 7)
    x = torch.randn(20, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    assert finished(program, x).digest == finished(program, x).digest


class Mixes(nn.Module):
    """Its view puts the batch into another axis."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(1, 4, 3).flip(0).reshape(2, 6).softmax(-1).reshape(1, 12)


def test_a_batch_that_cannot_be_opened_is_mapped_instead() -> None:
    x = torch.randn(5, 12, generator=torch.Generator().manual_seed(0))
    for model, expected in ((nn.Linear(12, 3), False), (Mixes(), True)):
        program = traced(model, 12)
        _, run, mapped = batched(program)
        assert mapped is expected
        assert torch.allclose(run(x)[0], program.run(x)[0], atol=1e-6)
        finished(program, x)


def test_mapped_passes_of_different_sizes_count_every_sample(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = traced(nn.Sequential(Mixes(), nn.Linear(12, 3)), 12)
    x = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    whole = calibrate(program, [x]).stats
    monkeypatch.setattr(watch, "_pieces", lambda _: 3)
    pieces = calibrate(program, [x]).stats
    for name, stats in whole.items():
        assert torch.equal(pieces[name].lows, stats.lows)
        assert torch.equal(pieces[name].highs, stats.highs)
        assert float(pieces[name].counts.sum()) == float(stats.counts.sum())


def test_entropy_cuts_a_tail_that_minmax_keeps() -> None:
    x = torch.cat([torch.randn(20_000, generator=torch.Generator().manual_seed(0)), torch.tensor([80.0])])  # fmt: skip
    stats = TensorStats.of(x, x.amin().reshape(1), x.amax().reshape(1))
    low, high = choose_range(stats, Rule(observer="entropy"))
    assert high < 20.0 and low < -3.0
    assert choose_range(stats, Rule(observer="minmax"))[1] == pytest.approx(80.0)


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_of_the_house_makes_a_program(name: str) -> None:
    recipe = Recipe.load(name)
    program = traced(nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4)), 32)
    program = rewrites.standard(program, recipe.split)
    x = torch.randn(40, 32, generator=torch.Generator().manual_seed(0))
    made = finish(program, calibrate(program, [x]), recipe, x)
    floats = name.startswith(("float", "palette"))
    assert made.program.quantized is not floats
    assert (made.program.encodings == {}) is (floats or name in ("w8", "w4-blocks"))
    assert made.program.real_borders is (name == "int8-float-io")
    before = program.run(x)[0]
    near = float((made.program.run(x)[0] - before).abs().max())
    assert near < (0.5 if name in ("w4a4", "palette2") else 0.15) * float(before.abs().max())


def test_first_and_last_layers_keep_eight_bits_unless_an_exception_says_otherwise() -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
    program, x = traced(model, 8), torch.randn(40, 8)
    calibration = calibrate(program, [x])

    def bits(recipe: Recipe) -> list[int]:
        plan = Draft.start(program, calibration, recipe).plan
        return [e.bits for edge, e in plan.constants.items() if "weight" in edge[1]]

    low = Recipe.load("w4a4")
    assert bits(low) == [8, 4, 8]
    assert bits(low.model_copy(update={"ends": None})) == [4, 4, 4]
    own = LayerException(match="4", weights=5)
    assert bits(low.model_copy(update={"exceptions": (own,)})) == [8, 4, 5]
    draft = Draft.start(program, calibration, low)
    again = Draft.start(program, calibration, draft.recipe)
    assert [e.match for e in again.recipe.exceptions] == ["linear", "linear_2"]
    assert [e.operands for e in draft.recipe.exceptions] == [8, 8]


def test_weights_in_groups_are_nearer_than_one_scale_for_all() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(64, 8)
    with torch.no_grad():
        layer.weight[:, ::16] *= 20.0
    program, x = traced(layer, 64), torch.randn(64, 64)
    errors = {}
    for kind in ("per_tensor", "per_channel", "per_group"):
        rule = Rule(bits=4, symmetric=True, granularity=kind, group=8)
        recipe = Recipe(name=kind, weights=rule, activations=None)
        made = finish(program, calibrate(program, [x]), recipe, x)
        errors[kind] = float((made.program.run(x)[0] - program.run(x)[0]).square().mean())
    assert errors["per_group"] < 0.7 * errors["per_channel"] < 0.7 * errors["per_tensor"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('[[exceptions]]\nmatch = "head"\nweights = 4\n[[exceptions]]\nmatch = "head"\nweights = 6', "two exceptions for match = 'head' contradict each other"),
        ('[[exceptions]]\nop = "softmax"\nweights = 4\nleave_float = true', "leave_float contradicts a number of bits"),
        ('[[exceptions]]\nmatch = "head"', "it changes nothing: give bits, or leave_float"),
        ('[[exceptions]]\nweights = 4', "give match, regex or op"),
        ('[[exceptions]]\nregex = "(["\nweights = 4', "is no regular expression"),
        ('activations = false\n[operands]\nbits = 4', "without activations there are no operands"),
        ('[activations]\ngranularity = "per_channel"', "activations have one scale per tensor"),
    ],
)  # fmt: skip
def test_rules_that_contradict_each_other_are_refused(
    fields: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(f'name = "mine"\n{fields}\n')
    with pytest.raises(InputError, match=message):
        Recipe.load(str(path))


def test_an_exception_that_matches_nothing_says_what_there_is(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\n[[exceptions]]\nmatch = "stages.9.*"\nweights = 4\n')
    program = traced(nn.Sequential(nn.Linear(4, 2)), 4)
    with pytest.raises(
        InputError, match=r"no node matches match = 'stages\.9\.\*'\n  try: modules are 0"
    ):
        finish(program, calibrate(program, [torch.ones(1, 4)]), Recipe.load(str(path)), torch.ones(1, 4))  # fmt: skip


def test_an_order_without_calibration_data_is_refused(tmp_path: Path) -> None:
    from edgemix import pipeline

    order = Order("edgemix.models.demo:create", ("onnx",), tmp_path / "out", "digits:heldout")
    with pytest.raises(InputError, match="there is no calibration data"):
        pipeline.deploy(order)
    assert not (tmp_path / "out").exists()
