"""Factors: the best of their rank, worth what is predicted, and only where they pay."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor, nn

from edgemix import proof, rewrites
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.program import Origin, Program
from edgemix.quantize.prune.dense_sparse import codes, dense_sparse
from edgemix.quantize.prune.factor import Factored, factorize
from edgemix.quantize.prune.factors import at_each_place, by_channel, low_rank, second_for


def _problem(rows: int, columns: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A weight, the covariance of inputs of very different sizes, and what rows are worth."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, generator=draw, dtype=torch.float64)
    spread = torch.logspace(0, -2, columns, dtype=torch.float64)
    x = torch.randn(columns, 4 * columns, generator=draw, dtype=torch.float64)
    mixed = torch.randn(columns, columns, generator=draw, dtype=torch.float64) @ (
        spread[:, None] * x
    )
    return weight, mixed @ mixed.T / x.shape[1], torch.rand(rows, generator=draw).double() + 0.1


def _error(weight: Tensor, found: Tensor, covariance: Tensor, sensitivity: Tensor) -> float:
    missed = sensitivity.sqrt()[:, None] * (weight - found)
    return float(((missed @ covariance) * missed).sum())


_SIZES = st.integers(1, 9)


@settings(deadline=None, max_examples=60)
@given(_SIZES, _SIZES, st.integers(0, 1000))
def test_the_error_of_every_rank_is_the_predicted_one(rows: int, columns: int, seed: int) -> None:
    weight, covariance, sensitivity = _problem(rows, columns, seed)
    basis = low_rank(weight, covariance, sensitivity)
    total = _error(weight, torch.zeros_like(weight), covariance, sensitivity)
    assert float(basis.error[0]) == pytest.approx(total)
    for rank in range(1, len(basis.rows) + 1):
        first = basis.rows[:rank]
        found = second_for(weight, covariance, first) @ first
        error = _error(weight, found, covariance, sensitivity)
        assert error == pytest.approx(float(basis.error[rank]), abs=1e-10 * total)
    assert torch.all(basis.error.diff() <= 0)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 7), st.integers(2, 7), st.integers(0, 1000))
def test_no_other_factors_of_a_rank_are_better(rows: int, columns: int, seed: int) -> None:
    weight, covariance, sensitivity = _problem(rows, columns, seed)
    basis = low_rank(weight, covariance, sensitivity)
    draw = torch.Generator().manual_seed(seed + 1)
    for rank in range(1, min(rows, columns)):
        first = basis.rows[:rank] + 0.1 * torch.randn(rank, columns, generator=draw)
        other = second_for(weight, covariance, first) @ first
        least = float(basis.error[rank]) * (1 - 1e-9)
        assert _error(weight, other, covariance, sensitivity) >= least


@settings(deadline=None, max_examples=40)
@given(_SIZES, st.integers(1, 5), st.sampled_from([2, 3, 9]), st.integers(0, 1000))
def test_channels_first_is_worth_what_is_predicted(
    rows: int, channels: int, places: int, seed: int
) -> None:
    weight, covariance, sensitivity = _problem(rows, channels * places, seed)
    basis = by_channel(weight, covariance, sensitivity, channels)
    total = _error(weight, torch.zeros_like(weight), covariance, sensitivity)
    assert float(basis.error[0]) == pytest.approx(total)
    for rank in range(1, len(basis.rows) + 1):
        first = at_each_place(basis.rows[:rank], places)
        found = second_for(weight, covariance, first) @ first
        error = _error(weight, found, covariance, sensitivity)
        assert error == pytest.approx(float(basis.error[rank]), abs=1e-8 * total)
    assert float(basis.error[-1]) <= 1e-8 * total


@settings(deadline=None, max_examples=30)
@given(st.integers(3, 9), st.integers(3, 9), st.integers(1, 3), st.integers(0, 1000))
def test_columns_take_so_many_vectors_and_the_best_values_of_them(
    size: int, inner: int, each: int, seed: int
) -> None:
    draw = torch.Generator().manual_seed(seed)
    dense = torch.randn(size, inner, generator=draw, dtype=torch.float64)
    target = torch.randn(size, 5, generator=draw, dtype=torch.float64)
    found = codes(dense, target, each)
    assert ((found != 0).sum(0) == each).all()
    for column in range(5):
        own = dense[:, found[:, column] != 0]
        best = torch.linalg.lstsq(own, target[:, column]).solution
        left = (target[:, column] - own @ best).square().sum()
        mine = (target[:, column] - dense @ found[:, column]).square().sum()
        assert float(mine) == pytest.approx(
            float(left), rel=1e-5, abs=1e-7 * float(target.square().sum())
        )


@settings(deadline=None, max_examples=25)
@given(st.integers(3, 12), st.integers(3, 12), st.integers(0, 1000))
def test_the_larger_factor_is_sparse(rows: int, columns: int, seed: int) -> None:
    weight, covariance, sensitivity = _problem(rows, columns, seed)
    inner = min(rows, columns) - 1
    first, second = dense_sparse(weight, covariance, sensitivity, inner, 1)
    assert (first.shape, second.shape) == ((inner, columns), (rows, inner))
    if rows <= columns:
        assert ((first != 0).sum(0) <= 1).all()
    else:
        assert ((second != 0).sum(1) <= 1).all()
    total = _error(weight, torch.zeros_like(weight), covariance, sensitivity)
    assert _error(weight, second @ first, covariance, sensitivity) < total


@pytest.mark.parametrize("rows", [10, 30])
def test_more_nonzeros_are_nearer_and_all_of_them_are_low_rank(rows: int) -> None:
    weight, covariance, sensitivity = _problem(rows, 20, 0)
    errors = []
    for each in (1, 2, 4, 6):
        first, second = dense_sparse(weight, covariance, sensitivity, 6, each)
        errors.append(_error(weight, second @ first, covariance, sensitivity))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == pytest.approx(float(low_rank(weight, covariance, sensitivity).error[6]))


def test_inner_channels_have_a_deviation_of_one() -> None:
    weight, covariance, sensitivity = _problem(6, 8, 0)
    rows = low_rank(weight, covariance, sensitivity).rows
    seen = rows @ covariance @ rows.T
    assert torch.allclose(seen, torch.eye(6, dtype=seen.dtype), atol=1e-8)


def test_rows_that_the_outputs_ignore_do_not_break_the_numbers() -> None:
    weight, covariance, _ = _problem(4, 5, 0)
    for sensitivity in (torch.zeros(4), torch.tensor([1.0, 0.0, 0.0, 0.0])):
        basis = low_rank(weight, covariance, sensitivity)
        assert torch.isfinite(basis.rows).all()
    basis = low_rank(torch.zeros(4, 5), covariance, torch.ones(4))
    assert torch.isfinite(basis.rows).all()
    assert not basis.error.any()


def _program(module: nn.Module, *shape: int) -> Program:
    return rewrites.standard(Program.trace(module, (torch.randn(*shape),), Origin("a test")))


def _rank(layer: nn.Module, rank: int) -> None:
    """Make a layer's weight one of low rank, over its kernel's columns."""
    weight: Tensor = layer.weight  # type: ignore[assignment]
    with torch.no_grad():
        flat = weight.reshape(len(weight), -1)
        left, values, right = torch.linalg.svd(flat, full_matrices=False)
        low = (left[:, :rank] * values[:rank]) @ right[:rank]
        weight.copy_(low.reshape(weight.shape))


class _Layers(nn.Module):
    def __init__(self, make: Callable[[], nn.Module], rank: int) -> None:
        super().__init__()
        self.a = make()
        _rank(self.a, rank)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = torch.relu(self.a(x))
        return result


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(23, 31), (1, 23)),
    "linear, no bias": (lambda: nn.Linear(31, 23, bias=False), (1, 5, 31)),
    "1x1": (lambda: nn.Conv2d(20, 24, 1), (1, 20, 3, 5)),
    "1x1, stride": (lambda: nn.Conv2d(20, 24, 1, stride=2), (1, 20, 5, 5)),
    "3x3": (lambda: nn.Conv2d(9, 30, 3, padding=1), (1, 9, 6, 5)),
    "3x5, stride, dilation": (
        lambda: nn.Conv2d(9, 30, (3, 5), (2, 1), (1, 2), (1, 2), bias=False), (1, 9, 9, 11)),
    "1d": (lambda: nn.Conv1d(12, 20, 4, stride=2, padding=1), (1, 12, 17)),
    "a batch": (lambda: nn.Conv2d(9, 30, 3), (2, 9, 6, 5)),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYERS)
def test_a_weight_of_low_rank_is_factored_exactly(kind: str) -> None:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    program = _program(_Layers(make, 3), *shape)
    samples = torch.randn(64, *shape[1:])
    small, (told,) = factorize(program, samples, 0.5)
    assert told.rank is not None and told.reason == ""
    assert multiply_accumulates(small) <= 0.5 * multiply_accumulates(program)
    saved = multiply_accumulates(program) - multiply_accumulates(small)
    assert told.saved == saved
    x = torch.randn(8, *shape[1:])
    wanted, found = program.run(x)[0], small.run(x)[0]
    assert (wanted - found).abs().max() <= 1e-4 * wanted.abs().max()


class _Mixed(nn.Module):
    """A residual, a depthwise and a grouped convolution, a weight used twice, a narrow head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 16, 3, padding=1)
        self.deep = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.parts = nn.Conv2d(16, 32, 1, groups=2)
        self.down = nn.Conv2d(32, 16, 3, stride=2, padding=1)
        self.twice = nn.Linear(16, 16)
        self.wide = nn.Linear(16, 48)
        self.narrow = nn.Linear(48, 16, bias=False)
        self.head = nn.Linear(16, 1)
        for weight in self.parameters():
            if weight.ndim > 1:
                nn.init.kaiming_normal_(weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.parts(torch.relu(self.deep(self.stem(x))))
        x = self.down(torch.relu(x))[:, :, 2, 1]
        x = self.twice(torch.relu(self.twice(x)))
        x = x + self.narrow(torch.relu(self.wide(x)))
        result: Tensor = self.head(x)
        return result


@pytest.fixture(scope="module")
def mixed() -> tuple[Program, Tensor]:
    torch.manual_seed(0)
    return _program(_Mixed(), 1, 1, 9, 7), torch.randn(96, 1, 9, 7)


_Result = tuple[Program, tuple[Factored, ...], list[float]]


@pytest.fixture(scope="module")
def factored(mixed: tuple[Program, Tensor]) -> _Result:
    shares: list[float] = []
    return (*factorize(*mixed, 0.6, on_step=shares.append), shares)


def test_what_stays_whole_says_why(mixed: tuple[Program, Tensor], factored: _Result) -> None:
    (program, _), (small, told, shares) = mixed, factored
    reasons = {f.where.module: f.reason for f in told if f.rank is None}
    assert reasons["deep"] == reasons["parts"] == "its groups have no channel in common"
    assert reasons["twice"] == "its weight is shared"
    assert reasons["head"] == "two are not cheaper than one"
    assert all(f.reason == "" for f in told if f.rank)
    assert [f.where.module for f in told if f.where.module == "twice"] == ["twice", "twice"]
    macs = multiply_accumulates(program)
    assert macs - multiply_accumulates(small) == sum(f.saved for f in told) >= 0.4 * macs
    assert shares == sorted(shares) and shares[-1] == 1.0
    names = [step.name for step in small.history[len(program.history) :]]
    assert names == ["factorize", "refit"]


def test_weights_are_counted_with_the_biases_that_factors_need(
    mixed: tuple[Program, Tensor],
) -> None:
    program, samples = mixed
    small, told = factorize(program, samples, 0.55, "parameters")
    assert small.parameters <= 0.55 * program.parameters
    assert program.parameters - small.parameters == sum(f.saved for f in told)


def test_fewer_inner_channels_are_predicted_to_cost_more_and_do(
    mixed: tuple[Program, Tensor], factored: _Result
) -> None:
    (program, samples), (some, told, _) = mixed, factored
    fewer, more_told = factorize(program, samples, 0.45)
    assert sum(f.error for f in told) < sum(f.error for f in more_told)
    wanted = program.run(samples)[0]
    errors = [(p.run(samples)[0] - wanted).square().mean() / wanted.var() for p in (some, fewer)]
    assert errors[0] < errors[1] < 1.0


def test_sparse_factors_keep_their_zeros(mixed: tuple[Program, Tensor]) -> None:
    program, samples = mixed
    small, told = factorize(program, samples, 0.75, "parameters", ("dense-sparse",))
    assert {f.form for f in told if f.rank} <= {"sparse first", "sparse second"}
    assert sum(f.saved for f in told) >= 0.25 * program.parameters
    weights = [v for v in small.graph.state_dict.values() if v.ndim > 1]
    zeros = sum(int((v == 0).sum()) for v in weights)
    assert small.parameters - zeros < 0.75 * program.parameters
    wanted, found = program.run(samples)[0], small.run(samples)[0]
    assert float((wanted - found).square().mean() / wanted.var()) < 1.0


def test_kinds_are_known_and_go_with_what_is_counted(mixed: tuple[Program, Tensor]) -> None:
    with pytest.raises(InputError, match="multiplied by like any other"):
        factorize(*mixed, 0.5, kinds=("dense-sparse",))
    with pytest.raises(InputError, match="no factors of the kind butterfly"):
        factorize(*mixed, 0.5, kinds=("butterfly",))  # type: ignore[arg-type]


@pytest.mark.parametrize("budget", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_a_budget_is_a_share(mixed: tuple[Program, Tensor], budget: float) -> None:
    with pytest.raises(InputError, match="is no share"):
        factorize(*mixed, budget)


def test_a_budget_that_cannot_be_met_names_the_floor(mixed: tuple[Program, Tensor]) -> None:
    program, samples = mixed
    with pytest.raises(InputError, match=r"cannot be met: \d+\.\d% is the least") as told:
        factorize(program, samples, 0.05)
    floor = float(str(told.value).split(": ")[1].split("%")[0]) / 100
    small, _ = factorize(program, samples, floor + 0.0006)
    assert multiply_accumulates(small) <= (floor + 0.0006) * multiply_accumulates(program)


def test_nothing_that_pays_says_so() -> None:
    torch.manual_seed(0)
    program = _program(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)), 1, 2)
    with pytest.raises(InputError, match="no layer is cheaper as two"):
        factorize(program, torch.randn(32, 2), 0.9)


def test_a_programs_steps_are_factored_on_its_own_states() -> None:
    from edgemix import sources

    program = rewrites.standard(sources.load("edgemix.models.tiny:linear_transformer", step=True))
    torch.manual_seed(0)
    shape = program.inputs[0].shape[1:]
    small, told = factorize(program, torch.randn(32, 20, *shape), 0.8)
    assert multiply_accumulates(small) <= 0.8 * multiply_accumulates(program)
    assert small.states == program.states and any(t.rank for t in told)
    x = torch.randn(16, 20, *shape)
    near = proof.sqnr_db(program.run(x)[0], small.run(x)[0])
    assert near is not None and near > 20


def test_factors_are_pruned_factored_and_quantized_like_any_layer(
    mixed: tuple[Program, Tensor], factored: _Result
) -> None:
    from edgemix.quantize.levels import QUALITY
    from edgemix.quantize.prune.axes import units_of
    from edgemix.quantize.quality import improve
    from edgemix.quantize.recipe import Recipe

    (_, samples), (small, told, _) = mixed, factored
    again = rewrites.standard(small)
    assert multiply_accumulates(again) == multiply_accumulates(small)
    widths = {len(group.units) for group in units_of(small).groups}
    assert {f.rank for f in told if f.rank and f.rank > 1} <= widths
    smaller, _ = factorize(small, samples, 0.9)
    assert multiply_accumulates(smaller) <= 0.9 * multiply_accumulates(small)
    recipe = Recipe.load("int8").model_copy(update={"algorithms": QUALITY["fast"]})
    coded = improve(small, samples, recipe).program
    wanted, found = small.run(samples)[0], coded.run(samples)[0]
    assert float((wanted - found).square().mean() / wanted.var()) < 0.01


def test_the_predicted_error_of_the_last_layer_is_the_outputs() -> None:
    """Slopes of the last layer are exact: one over the deviation, and the number of outputs."""
    torch.manual_seed(0)
    program = _program(nn.Sequential(nn.Linear(24, 20)), 1, 24)
    samples = torch.randn(4096, 24) * torch.logspace(0, -1, 24)
    small, (told,) = factorize(program, samples, 0.5)
    wanted, found = program.run(samples)[0], small.run(samples)[0]
    error = ((wanted - found) / wanted.std(0)).square().mean()
    assert told.error == pytest.approx(float(error), rel=0.05)
