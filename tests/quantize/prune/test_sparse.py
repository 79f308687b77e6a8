"""Sparse weights: the pattern holds to the bit, costs little, and survives quantization."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import proof, rewrites, sources
from edgemix.errors import InputError
from edgemix.program import Origin, Program
from edgemix.quantize.levels import Algorithm
from edgemix.quantize.palette import nearest_of_few
from edgemix.quantize.prune.moments import Moments, solve
from edgemix.quantize.prune.sparse import Pattern, sparsify, sparsities
from edgemix.quantize.quality import improve
from edgemix.quantize.recipe import Recipe


class Net(nn.Module):
    """Convolutions, one of groups and one depthwise, a residual sum, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=2, bias=False)
        self.depthwise = nn.Conv2d(16, 16, 3, padding=1, groups=16)
        self.point = nn.Conv2d(16, 16, 1)
        self.wide, self.narrow = nn.Linear(16, 30), nn.Linear(30, 16)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.point(torch.relu(self.depthwise(torch.relu(self.grouped(x)))))
        y = x.mean((2, 3))
        head: Tensor = self.head(y + self.narrow(torch.relu(self.wide(y))))
        return head


class Twice(nn.Module):
    """One linear layer that is used twice, between two others; the first of its inputs is dead."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.same = nn.Linear(8, 8), nn.Linear(8, 8)
        self.middle, self.last = nn.Linear(8, 8), nn.Linear(8, 2)
        with torch.no_grad():
            self.same.weight[0], self.same.bias[0] = 0.0, -1.0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.same(torch.relu(self.same(self.first(x)))))
        last: Tensor = self.last(self.middle(x))
        return last


def _program(module: nn.Module, *shape: int) -> Program:
    return rewrites.standard(Program.trace(module, (torch.zeros(*shape),), Origin("a test")))


@pytest.fixture(scope="module")
def net() -> Program:
    torch.manual_seed(0)
    return _program(Net(), 1, 3, 6, 6)


@pytest.fixture(scope="module")
def samples() -> Tensor:
    return torch.randn(48, 3, 6, 6, generator=torch.Generator().manual_seed(1))


def _weights(program: Program) -> dict[str, Tensor]:
    module = program.module()
    layers = [n for n in module.graph.nodes if n.target in g.LINEAR]
    return {str(g.where(n).module): g.dequantized(module, n.args[1]) for n in layers}


def _most(weight: Tensor, run: int) -> int:
    """The most weights that are not zero in any run of input channels."""
    runs = weight.flatten(2) if weight.ndim > 2 else weight[:, :, None]
    return int((runs.unflatten(1, (-1, run)) != 0).sum(2).max())


@pytest.mark.parametrize("text", ["2:4", "1:4", "4:8", "1:2", "70%", "12.5%"])
def test_a_pattern_is_what_it_says(text: str) -> None:
    assert str(Pattern.parse(text)) == text


@pytest.mark.parametrize(
    "text", ["", "4:4", "0:4", "5:4", "2:", "70", "0%", "100%", "nan%", "-2:4"]
)
def test_no_pattern_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="no pattern"):
        Pattern.parse(text)


@pytest.mark.parametrize("text", ["2:4", "1:4", "4:8"])
def test_every_run_has_its_zeros(net: Program, samples: Tensor, text: str) -> None:
    pattern = Pattern.parse(text)
    made = sparsify(net, samples, pattern)
    weights = _weights(made)
    assert pattern.run is not None
    for name in ("grouped", "point", "wide"):
        assert _most(weights[name], pattern.run) == pattern.stay
    found = {str(s.where.module): s for s in sparsities(made, pattern)}
    whole = {name: s.whole for name, s in found.items() if s.whole}
    assert whole == {
        "stem": "first or last",
        "depthwise": "depthwise",
        "narrow": f"its 30 input channels are no runs of {pattern.run}",
        "head": "first or last",
    }
    assert all(found[name].zeros == 0 for name in whole)
    assert found["wide"].zeros == pattern.zeros * found["wide"].weights
    assert made.history[-1].options == {"pattern": text, "samples": 48}


def test_a_share_of_all_weights_goes(net: Program, samples: Tensor) -> None:
    pattern = Pattern.parse("60%")
    found = [s for s in sparsities(sparsify(net, samples, pattern), pattern) if not s.whole]
    zeros, weights = sum(s.zeros for s in found), sum(s.weights for s in found)
    assert 0.6 * weights <= zeros <= 0.6 * weights + len(found)
    assert len({round(s.zeros / s.weights, 1) for s in found}) > 1


@pytest.mark.parametrize("text", ["2:4", "50%"])
def test_outputs_are_nearer_than_by_magnitude(net: Program, samples: Tensor, text: str) -> None:
    pattern = Pattern.parse(text)
    made = sparsify(net, samples, pattern)
    torch.manual_seed(0)
    plain = Net()
    with torch.no_grad():
        for layer in (plain.grouped, plain.point, plain.wide):
            size = layer.weight.abs().movedim(1, -1).unflatten(-1, (-1, 4))
            stay = torch.zeros_like(size).scatter(-1, size.topk(2, dim=-1).indices, 1.0)
            layer.weight.mul_(stay.flatten(-2).movedim(-1, 1))
    x = torch.randn(64, 3, 6, 6, generator=torch.Generator().manual_seed(2))
    (whole,), (sparse,) = net.run(x), made.run(x)
    (simple,) = _program(plain, 1, 3, 6, 6).run(x)
    assert (sparse - whole).square().mean() < 0.5 * (simple - whole).square().mean()


def test_tied_weights_stay_whole_and_dead_inputs_do_no_harm() -> None:
    torch.manual_seed(0)
    program = _program(Twice(), 1, 8)
    x = torch.randn(40, 8)
    pattern = Pattern.parse("2:4")
    made = sparsify(program, x, pattern)
    found = sparsities(made, pattern)
    assert [s.whole for s in found] == [
        "first or last", *["weights with several readers"] * 2, "", "first or last",
    ]  # fmt: skip
    assert torch.equal(_weights(made)["same"], _weights(program)["same"])
    assert bool((_weights(made)["middle"][:, 0] == 0).all())  # it never says anything
    assert torch.isfinite(made.run(x)[0]).all()


def test_a_constant_input_is_taken_by_the_bias() -> None:
    torch.manual_seed(0)
    program = _program(nn.Sequential(*(nn.Linear(8, 8) for _ in range(3))), 1, 8)
    x = torch.ones(24, 8)
    made = sparsify(program, x, Pattern.parse("1:4"))
    assert torch.allclose(made.run(x)[0], program.run(x)[0], atol=1e-5)


def test_what_is_zero_stays_zero(net: Program, samples: Tensor) -> None:
    once = sparsify(net, samples, Pattern.parse("1:4"))
    again = sparsify(once, samples, Pattern.parse("2:4"))
    before, after = _weights(once), _weights(again)
    for name, weight in before.items():
        assert bool((after[name][weight == 0] == 0).all())


def test_one_sample_is_enough_to_run(net: Program, samples: Tensor) -> None:
    made = sparsify(net, samples[:1], Pattern.parse("2:4"))
    assert torch.isfinite(made.run(samples)[0]).all()


def test_what_cannot_be_sparse_is_refused(net: Program, samples: Tensor) -> None:
    with pytest.raises(InputError, match="no samples"):
        sparsify(net, samples[:0], Pattern.parse("2:4"))
    with pytest.raises(InputError, match="every layer whole: 2 first or last"):
        sparsify(_program(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), 1, 8), torch.zeros(4, 8),
                 Pattern.parse("2:4"))  # fmt: skip


@pytest.fixture(scope="module")
def perceptron() -> Program:
    torch.manual_seed(0)
    layers = (nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    made = _program(nn.Sequential(*layers), 1, 8)
    return sparsify(made, torch.randn(48, 8), Pattern.parse("2:4"))


@pytest.mark.parametrize(
    ("recipe", "algorithms"),
    [
        ("int8", ("equalize", "reparam", "smooth", "domains", "ranges", "gptq", "bias")),
        ("w4a8", ("gptq", "bias")),
        ("w4a8", ("reconstruct",)),
        ("w4a8", ("adaround",)),
        ("palette2", ()),
    ],
)
def test_zeros_survive_quantization(
    perceptron: Program, recipe: str, algorithms: tuple[Algorithm, ...]
) -> None:
    chosen = Recipe.load(recipe).model_copy(update={"algorithms": algorithms})
    coded = _weights(improve(perceptron, torch.randn(48, 8), chosen).program)
    weights = _weights(perceptron)
    assert int((weights["2"] == 0).sum()) == 128
    for name, weight in weights.items():
        assert bool((coded[name][weight == 0] == 0).all()), name


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 12), st.booleans())
def test_rows_are_fitted_over_what_stays(
    seed: int,
    rows: int,
    columns: int,
    centred: bool,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(1, 2, columns, 40, generator=generator, dtype=torch.float64)
    y = torch.randn(1, 2, rows, 40, generator=generator, dtype=torch.float64)
    moments = Moments()
    moments.add(x, y)
    stay = torch.rand(2, rows, columns, generator=generator) < 0.5
    near = torch.zeros(2, rows, columns, dtype=torch.float64)
    fit = solve((moments, Moments()), near, centred=centred)
    found = fit.without(stay)
    assert bool((found.weight[~stay] == 0).all())
    # At the least error the slope is zero in every weight that stays.
    slope = found.weight @ fit.square - fit.cross
    assert float(torch.where(stay, slope, 0.0).abs().max()) < 1e-9
    assert torch.allclose(fit.without(torch.ones_like(stay)).weight, fit.weight)


@given(st.lists(st.sampled_from([-2.0, -1.5, 0.0, 0.3, 0.7, 1.1, 5.0]), min_size=1, max_size=30))
def test_a_palette_keeps_zeros_and_its_size(numbers: list[float]) -> None:
    values = torch.tensor(numbers)
    made = nearest_of_few(values, 2)
    assert bool((made[values == 0] == 0).all())
    assert len(torch.unique(made)) <= 4


@pytest.mark.parametrize("pattern", ["2:4", "50%"])
def test_a_programs_steps_are_sparse_fitted_on_its_own_states(pattern: str) -> None:
    program = rewrites.standard(sources.load("edgemix.models.tiny:linear_transformer", step=True))
    torch.manual_seed(0)
    shape = program.inputs[0].shape[1:]
    asked = Pattern.parse(pattern)
    small = sparsify(program, torch.randn(32, 20, *shape), asked)
    found = [s for s in sparsities(small, asked) if not s.whole]
    zeros = sum(s.zeros for s in found) / sum(s.weights for s in found)
    assert zeros == pytest.approx(0.5, abs=0.01) and small.states == program.states
    x = torch.randn(16, 20, *shape)
    masked = _masked(program, small)
    near, far = (proof.sqnr_db(program.run(x)[0], p.run(x)[0]) for p in (small, masked))
    assert near is not None and far is not None and near > far + 5


def _masked(program: Program, sparse: Program) -> Program:
    """The whole program with another's zeros, and its own weights."""
    module = program.module()
    for node in module.graph.find_nodes(op="get_attr"):
        name, own = str(node.target), g.constant(module, node)
        other = sparse.graph.state_dict.get(name)
        if own.ndim > 1 and other is not None:
            g.set_constant(module, name, own * (other != 0))
    return program.with_module(module)
