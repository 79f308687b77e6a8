"""Fewer tokens: what goes is what sorting would choose, and artifacts choose the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemix import graph, proof, rewrites, targets
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.graph import where
from edgemix.program import Origin, Program
from edgemix.quantize.prune.choices import TokenMethod
from edgemix.quantize.prune.matching import KINDS, PiToMe, ToMe, ZeroTPrune
from edgemix.quantize.prune.selection import Close, First, Highest, Order, Pick
from edgemix.quantize.prune.stream import find
from edgemix.quantize.prune.tokens import reduce_tokens
from tests.benchmarks.prune.models import ViT
from tests.benchmarks.ptq.models import REFERENCES, build_caformer

METHODS: tuple[TokenMethod, ...] = ("tome", "pitome", "zerotprune")
VALUES = st.lists(st.sampled_from([-2.0, -1.0, -0.0, 0.0, 0.5, 1e-30, 3e38]), min_size=1)


@settings(max_examples=60, deadline=None)
@given(VALUES, st.data())
def test_picking_is_a_stable_sort(values: list[float], data: st.DataObject) -> None:
    count = len(values)
    picked = data.draw(st.integers(1, count))
    x = torch.tensor([values])
    order = Order(count)(x)
    wanted = torch.argsort(x, descending=True, stable=True)[0]
    assert torch.equal(order.sum(-1)[0].argsort(), wanted)
    rows = torch.randn(1, count, 3)
    assert torch.equal(Pick(picked)(order) @ rows, rows[:, wanted[:picked]])
    step = Pick(-(-count // 2), 0, 2)(order)
    assert torch.equal(step @ rows, rows[:, wanted[::2]])
    first = First(picked)(order)[0]
    assert sorted(first.nonzero().flatten().tolist()) == sorted(wanted[:picked].tolist())


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 40), st.data())
def test_gaps_close_and_no_row_is_lost(count: int, data: st.DataObject) -> None:
    gone = data.draw(st.integers(1, count - 1))
    marked = torch.zeros(1, count)
    marked[:, torch.randperm(count)[:gone]] = 1.0
    rows = torch.randn(1, count, 4)
    close = Close(count, gone)
    found = close.move(rows, close.matrix(marked))[0]
    wanted = rows[0, marked[0] == 0]
    assert found.shape == wanted.shape
    assert sorted(found.tolist()) == sorted(wanted.tolist())
    stay = [i for i in range(count - gone) if not marked[0, i]]
    assert torch.equal(found[stay], rows[0, stay])


def test_of_equal_values_the_first_is_highest() -> None:
    x = torch.tensor([[[1.0, 3.0, 3.0], [0.0, 0.0, 0.0], [-1.0, -2.0, -1.0]]])
    assert Highest(3)(x)[0].tolist() == [[0, 1, 0], [1, 0, 0], [1, 0, 0]]


def _tokens(count: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens, sizes, keys and attention of two samples, with a class token."""
    torch.manual_seed(seed)
    keys = torch.randn(2, 3, 4, count)
    attention = torch.randn(2, 3, count, count).softmax(-1)
    return torch.randn(2, count, 6), torch.randint(1, 4, (2, count - 1, 1)).float(), keys, attention


def _set(rows: Tensor) -> Tensor:
    """Rows in an order of their own: where a token is says nothing."""
    return rows[rows[:, 0].argsort()]


def _published_tome(x: Tensor, size: Tensor, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Bolya et al., appendix D, with gather and scatter; the class token in front stays."""
    size = torch.cat([torch.ones(len(size), 1, 1), size], 1)
    metric = keys.mean(1).transpose(1, 2)
    metric = metric / metric.norm(dim=-1, keepdim=True)
    metric, head, x, sizes = metric[:, 1:], x[:, :1], x[:, 1:], size[:, 1:]
    scores = metric[..., ::2, :] @ metric[..., 1::2, :].transpose(-1, -2)
    best, goal = scores.max(-1)
    edge = best.argsort(-1, descending=True)[..., None]
    left, source = edge[:, r:], edge[:, :r]
    goal = goal[..., None].gather(1, source)

    def merge(v: Tensor) -> Tensor:
        a, b = v[:, ::2], v[:, 1::2]
        c = v.shape[-1]
        moved = a.gather(1, source.expand(-1, -1, c))
        b = b.scatter_add(1, goal.expand(-1, -1, c), moved)
        return torch.cat([a.gather(1, left.expand(-1, -1, c)), b], 1)

    merged = merge(sizes)
    return torch.cat([head, merge(x * sizes) / merged], 1), merged


@pytest.mark.parametrize(("count", "gone"), [(9, 1), (17, 5), (18, 8), (66, 31)])
def test_merging_is_the_published_one(count: int, gone: int) -> None:
    x, size, keys, _ = _tokens(count)
    found, sizes = ToMe(count, gone, 1, 0.0)(x, size, keys)
    wanted, wanted_sizes = _published_tome(x, size, keys, gone)
    assert found.shape == (2, count - gone, 6)
    for i in range(2):
        assert torch.equal(found[i, 0], x[i, 0])
        pairs = (
            torch.cat([found[i, 1:], sizes[i]], 1),
            torch.cat([wanted[i, 1:], wanted_sizes[i]], 1),
        )
        assert torch.allclose(*map(_set, pairs), atol=1e-5)


@pytest.mark.parametrize("gone", [1, 4, 7])
def test_only_crowded_tokens_merge(gone: int) -> None:
    x, size, keys, _ = _tokens(16)
    found, sizes = PiToMe(16, gone, 1, 0.5)(x, size, keys)
    k = nn.functional.normalize(keys.mean(1).transpose(1, 2)[:, 1:], dim=-1)
    for i in range(2):
        alike = k[i] @ k[i].T
        margin = 0.9 - 0.9 * 0.5
        energy = torch.where(alike >= margin, alike, (alike - margin).exp() - 1 + margin).mean(1)
        crowd = energy.argsort(descending=True)[: 2 * gone]
        total, count = (x[i, 1:] * size[i]).clone(), size[i].clone()
        for a in crowd[::2]:
            b = crowd[1::2][alike[a, crowd[1::2]].argmax()]
            total[b] += x[i, 1 + a] * size[i, a]
            count[b] += size[i, a]
        stay = [j for j in range(15) if j not in crowd[::2].tolist()]
        assert torch.allclose(_set(found[i, 1:]), _set((total / count)[stay]), atol=1e-5)
        assert float(sizes[i].sum()) == float(size[i].sum())


@pytest.mark.parametrize("gone", [1, 2, 9, 14])
def test_the_lightest_tokens_and_twins_go(gone: int) -> None:
    x, _, keys, attention = _tokens(16)
    found = ZeroTPrune(16, gone, 1, 0.0)(x, attention, keys)
    for i in range(2):
        rank = torch.full((3, 1, 16), 1 / 16)
        for _ in range(3):
            rank = rank @ attention[i]
        weight = rank.square().sum((0, 1))[1:]
        k = nn.functional.normalize(keys[i].mean(0).T[1:], dim=-1)
        heavier = weight[None] > weight[:, None]
        twin = (k @ k.T).masked_fill(~heavier, -9.0).amax(1)
        twins = twin.argsort(descending=True)[: gone // 2].tolist()
        others = [j for j in weight.argsort().tolist() if j not in twins]
        stay = sorted(others[gone - gone // 2 :])
        assert torch.equal(_set(found[i, 1:]), _set(x[i, 1:][stay]))


def _program(module: nn.Module, *sizes: int) -> Program:
    return rewrites.standard(Program.trace(module.eval(), (torch.zeros(sizes),), Origin("a test")))


def _vit(**options: int) -> Program:
    torch.manual_seed(0)
    return _program(ViT(**{"dim": 32, "depth": 2, "heads": 2, **options}), 1, 1, 32, 32)


SAMPLES = torch.randn(6, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_a_class_token_asked_alone_costs_nothing() -> None:
    program = _vit()
    small, plan = reduce_tokens(program, SAMPLES, "tome", 0.95)
    assert [(r.before, r.after) for r in plan.layers] == [(65, 65), (65, 1)]
    assert plan.choosing == 0
    span = program.run(SAMPLES)[0].abs().max()
    assert (small.run(SAMPLES)[0] - program.run(SAMPLES)[0]).abs().max() < 1e-6 * span


@pytest.mark.parametrize("method", METHODS)
def test_a_budget_is_kept_and_counted(method: TokenMethod) -> None:
    program = _vit(depth=3)
    small, plan = reduce_tokens(program, SAMPLES, method, 0.6)
    assert plan.macs == tuple(map(multiply_accumulates, (program, small)))
    assert plan.macs[1] <= 0.6 * plan.macs[0]
    assert 0 < plan.choosing < 0.15 * plan.macs[1]
    assert plan.kept == 1
    again = rewrites.standard(small)
    assert multiply_accumulates(again) == plan.macs[1]
    found, wanted = again.run(SAMPLES)[0], program.run(SAMPLES)[0]
    assert plan.sqnr_db is not None
    error = proof.sqnr_db(wanted, found)
    assert error is not None
    assert abs(error - plan.sqnr_db) < 0.1
    paths = {where(n).module for n in small.module().graph.nodes if n.op == "call_function"}
    assert {"blocks.0.qkv", "blocks.2.reduce"} <= paths


class _Mean(nn.Module):
    """A mean over tokens in the end, and torch's own blocks."""

    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(
            16, 2, 32, dropout=0.0, batch_first=True, norm_first=True
        )
        self.embed, self.head = nn.Linear(4, 16), nn.Linear(16, 3)
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(self.embed(x)).mean(1))
        return result


class _Twins(nn.Module):
    """Tokens twice: what is alike merges, and the mean stays what it was."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = _Mean()

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.model(x.repeat_interleave(2, 1))
        return result


@pytest.mark.parametrize("method", ["tome", "pitome"])
def test_merging_twins_changes_nothing(method: TokenMethod) -> None:
    """Scores count merged tokens twice, and so does the mean."""
    program = _program(_Twins(), 1, 6, 4)
    x = torch.randn(5, 6, 4, generator=torch.Generator().manual_seed(1))
    small, plan = reduce_tokens(program, x, method, 0.95)
    assert plan.kept == 0
    assert plan.layers[-1].after < 12
    wanted = program.run(x)[0]
    if method == "tome":  # crowds of one pair merge with another where their keys are as near
        assert (small.run(x)[0] - wanted).abs().max() < 1e-5 * wanted.abs().max()


def test_every_stride_of_tokens_goes_down_to_the_least() -> None:
    program = _program(_Mean(), 1, 7, 4)
    x = torch.randn(3, 7, 4)
    with pytest.raises(InputError, match=r"budget cannot be met: .*% is the least") as error:
        reduce_tokens(program, x, "tome", 0.01)
    share = float(str(error.value).split("met: ")[1].split("%")[0]) / 100
    _, plan = reduce_tokens(program, x, "tome", share + 0.001)
    assert all(r.after >= 1 for r in plan.layers)


@pytest.mark.parametrize("name", ["onnx", pytest.param("tflite", marks=pytest.mark.slow)])
def test_artifacts_choose_the_same_tokens(
    name: str, tmp_path: Path, program_file: Callable[[Program], Path]
) -> None:
    class All(nn.Module):
        """Every method on the same tokens, which the input says."""

        def __init__(self) -> None:
            super().__init__()
            self.merging = nn.ModuleList([ToMe(12, 4, 1, 0.5), PiToMe(12, 4, 1, 0.5)])
            self.pruning = ZeroTPrune(12, 5, 1, 0.5)

        def forward(self, x: Tensor) -> tuple[Tensor, ...]:
            keys = x.reshape(1, 12, 2, 3).permute(0, 2, 3, 1)
            attention = (keys.transpose(2, 3) @ keys).softmax(-1)
            size = x[:, 1:, :1].abs() + 1.0
            merged = [v for kind in self.merging for v in kind(x, size, keys)]
            return (*merged, self.pruning(x, attention, keys))

    program = _program(All(), 1, 12, 6)
    x = torch.randn(30, 12, 6, generator=torch.Generator().manual_seed(2))
    x[20:] = x[20:].round()  # ties
    x[29] = 0.0
    target = targets.load(name)
    assert target.supports(program) == ()
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None
    contract = target.promise(program)
    for wanted, got in zip(program.run(x), found, strict=True):
        assert proof.compare(wanted.numpy(), got, None, contract).passed


def test_what_decides_is_never_rounded(quantize_by: Callable[..., Program]) -> None:
    class Chosen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.order, self.pick = Order(9), Pick(4)
            self.linear = nn.Linear(5, 5)

        def forward(self, x: Tensor) -> Tensor:
            x = self.linear(x)
            fired = (x > 0.5).float()
            result: Tensor = self.pick(self.order((x * x).sum(-1))) @ fired
            return result

    torch.manual_seed(0)
    x = torch.randn(40, 9, 5)
    program = quantize_by(Chosen(), x, "int8")
    module = program.module()
    deciding = {n.name for n in graph.deciding(module)}
    assert deciding
    assert not deciding & set(program.encodings)
    compared = [n for n in module.graph.nodes if n.target is graph.aten.gt.Scalar]
    assert all(graph.is_dequantize(n.args[0]) for n in compared)  # a neuron's potential is rounded


def test_what_cannot_be_reduced_is_refused() -> None:
    grid = _program(build_caformer(), 1, 1, 32, 32)
    with pytest.raises(InputError, match=r"(?s)puts tokens on a grid.*stages\.3"):
        find(grid)
    module, example = REFERENCES["poolformer"]()
    with pytest.raises(InputError, match="no attention over tokens"):
        find(rewrites.standard(Program.trace(module, example, Origin("a test"))))

    class Bias(nn.Module):
        """A constant for each pair of places, behind a block."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.head = _Mean(), nn.Linear(7, 2)

        def forward(self, x: Tensor) -> Tensor:
            y = self.first.blocks(self.first.embed(x))
            result: Tensor = self.head(y.mean(2))
            return result

    with pytest.raises(InputError, match="weights mix tokens by their places"):
        find(_program(Bias(), 1, 7, 4))

    class Each(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = _Mean()

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.model.blocks(self.model.embed(x))
            return result

    with pytest.raises(InputError, match="a value for each token"):
        find(_program(Each(), 1, 7, 4))


@pytest.mark.parametrize("budget", [0.0, -1.0])
def test_a_budget_of_nothing_is_refused(budget: float) -> None:
    with pytest.raises(InputError, match="budget must be above"):
        reduce_tokens(_vit(depth=1), SAMPLES, "tome", budget)


def test_no_samples_are_refused() -> None:
    with pytest.raises(InputError, match="there are none"):
        reduce_tokens(_vit(depth=1), SAMPLES[:0], "tome", 0.9)


@pytest.mark.parametrize("method", METHODS)
def test_a_token_is_left(method: TokenMethod) -> None:
    for free in range(6):
        assert free - KINDS[method].most(free) >= min(free, 1)
