"""Rewrites: what they change, that they change nothing else, and that a wrong one is caught."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix import rewrites, sources
from edgemix.errors import EdgemixError, UnsupportedError
from edgemix.program import Origin, Program
from edgemix.rewrites.base import TOLERANCE, apply

SPLITS = ("split_softmax", "split_norm", "split_division", "split_resize")


class Everything(nn.Module):
    """Norms in every position, softmax, scalars, chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.after = nn.BatchNorm2d(6)
        self.alone = nn.BatchNorm2d(6)
        self.before = nn.BatchNorm2d(6)
        self.point = nn.Conv2d(6, 6, 1, bias=False)
        self.padded = nn.BatchNorm2d(6)
        self.window = nn.Conv2d(6, 6, 3, padding=1)
        self.vector = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                nn.init.uniform_(module.weight, 0.5, 2)
                nn.init.normal_(module.bias)
                module.running_mean.normal_()
                module.running_var.uniform_(0.3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.after(self.conv(x))
        x = x + nn.functional.avg_pool2d(self.alone(x), 3, 1, 1)
        x = self.window(self.padded(self.point(self.before(x)))) / 4
        a, b, c = x.chunk(3, dim=1)
        x = torch.cat([a * 0.3, b - 1.5, c], 1).flatten(2).softmax(-1)
        return self.head(self.vector(x.sum(-1) * 3 + x.amax(-1)))


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return Program.trace(Everything(), (torch.zeros(1, 3, 5, 7),), Origin("test"))


def operators(program: Program) -> list[str]:
    return [g.op_name(n) for n in g.float_ops(program.module())]


def test_standard_rewrites_leave_no_norm_chunk_or_scalar(program: Program) -> None:
    after = rewrites.standard(program, ("softmax",))
    names = operators(after)
    assert not {"batch_norm", "chunk", "softmax", "dropout"} & set(names)
    for node in g.float_ops(after.module()):
        if g.op_name(node) in ("mul", "add", "sub"):
            assert all(isinstance(a, torch.fx.Node) for a in node.args), node
    # The norm before the pooling finds no neighbour: it becomes a depthwise convolution.
    assert names.count("conv2d") == 3 + 1
    assert [s.name for s in after.history] == [
        "unpack_views", "fold_norm", "lift_scalars", "fold_scale", "split_softmax",
    ]  # fmt: skip
    x = torch.randn(4, 3, 5, 7)
    torch.testing.assert_close(after.run(x)[0], program.run(x)[0], rtol=1e-4, atol=1e-4)


class Contexts(nn.Module):
    """Contexts that change no number, one inside of another, with a constant inside."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(5))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            y = x * self.gain
            with torch.no_grad():
                y = y + torch.arange(5.0)
                z = y.relu()
        return y - z * 3


def test_what_stands_under_contexts_that_change_no_number_is_in_the_graph() -> None:
    module = Contexts()
    program = Program.trace(module, (torch.zeros(1, 5),), Origin("test"))
    after = rewrites.standard(program)
    assert {"mul", "relu", "sub"} <= set(operators(after))
    assert all(isinstance(n.target, OpOverload) for n in g.float_ops(after.module()))
    x = torch.randn(1, 5)
    with torch.no_grad():
        assert torch.equal(after.run(x)[0], module(x))


def test_an_autocast_that_is_on_is_refused_with_its_line() -> None:
    class Half(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return x @ x.T

    program = Program.trace(Half(), (torch.zeros(2, 5),), Origin("test"))
    with pytest.raises(UnsupportedError, match="an autocast to torch.bfloat16 is on"):
        rewrites.standard(program)


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 9), st.sampled_from([1, 2, -1]),
)  # fmt: skip
@settings(max_examples=10, deadline=None)
def test_sliding_windows_are_slices(size: int, step: int, more: int, axis: int) -> None:
    class Windows(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.unfold(axis, size, step) * 2

    shape = [1, 3, 3]
    shape[axis] = size + more
    program = Program.trace(Windows(), (torch.zeros(shape),), Origin("test"))
    after = apply(program, rewrites.load("open_windows"))
    assert "unfold" not in operators(after)
    x = torch.arange(float(math.prod(shape))).reshape(shape)
    assert torch.equal(after.run(x)[0], Windows()(x))


def test_windows_of_windows_are_moved_in_five_axes() -> None:
    class Halo(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = nn.functional.pad(x, [1, 1, 1, 1]).unfold(2, 4, 2).unfold(3, 4, 2)
            return x.reshape(1, 3, 9, 16).permute(0, 2, 3, 1).softmax(2)

    program = Program.trace(Halo(), (torch.zeros(1, 3, 6, 6),), Origin("test"))
    after = rewrites.standard(program)
    assert max(n.meta["val"].ndim for n in g.float_ops(after.module())) <= 5
    x = torch.randn(1, 3, 6, 6)
    torch.testing.assert_close(after.run(x)[0], Halo()(x))


@given(
    st.integers(1, 3), st.integers(1, 3), st.integers(0, 1), st.integers(1, 2), st.integers(5, 9),
    st.sampled_from([(), (1,), (2,)]),
)  # fmt: skip
@example(3, 3, 0, 1, 6, (2,))
@example(1, 3, 1, 1, 7, (1,))  # cropped behind
@settings(max_examples=15, deadline=None)
def test_unfold_and_fold_are_convolutions_or_views(
    kernel: int, stride: int, padding: int, dilation: int, size: int, batch: tuple[int, ...]
) -> None:
    options = {"dilation": dilation, "padding": padding, "stride": stride}

    class Windows(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            columns = nn.functional.unfold(x, kernel, **options)
            return columns * 2, nn.functional.fold(columns + 1, (size, wide), kernel, **options)

    wide = size + (0 if kernel == stride else 1)
    x = torch.randn(*batch, 3, size, wide)
    program = Program.trace(Windows(), (torch.zeros_like(x),), Origin("test"))
    after = apply(program, rewrites.load("open_folds"))
    tiles = kernel == stride and padding == 0 and (kernel - 1) * dilation < kernel
    count = operators(after).count("conv2d")
    assert count == (0 if tiles and size % kernel == 0 else 2)
    assert not {"im2col", "col2im", "conv_transpose2d"} & set(operators(after))
    for found, expected in zip(after.run(x), Windows()(x), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


@given(
    st.lists(st.integers(0, 2), min_size=4, max_size=4), st.integers(2, 3), st.integers(1, 2),
    st.integers(4, 9),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_pads_of_minus_infinity_become_the_poolings_own(
    pads: list[int], kernel: int, stride: int, size: int
) -> None:
    class Same(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.max_pool2d(
                nn.functional.pad(x, pads, value=-math.inf), kernel, stride
            )

    x = torch.randn(1, 2, size, size)
    if torch.isinf(Same()(x)).any():
        return  # a window of padding alone
    program = Program.trace(Same(), (torch.zeros_like(x),), Origin("test"))
    after = apply(program, rewrites.load("implicit_pads"))
    assert torch.equal(after.run(x)[0], Same()(x))
    if pads == [0, 1, 0, 1] and (kernel, stride) == (3, 2) and size % 2 == 0:
        assert "pad" not in operators(after)


def test_a_norm_of_a_row_without_neighbours_is_a_convolution() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(4)
    norm(torch.randn(64, 4, 5) * 2 + 1)
    module = nn.Sequential(nn.ReLU(), norm, nn.ReLU()).eval()
    after = rewrites.standard(Program.trace(module, (torch.zeros(1, 4, 5),), Origin("test")))
    assert operators(after) == ["relu", "conv1d", "relu"]
    x = torch.randn(3, 4, 5)
    with torch.no_grad():
        torch.testing.assert_close(after.run(x)[0], module(x))


class OneKey(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        weights = (x.transpose(1, 2) @ x).softmax(dim=-1)
        return x @ weights.transpose(1, 2)


def test_attention_to_one_key_is_its_value() -> None:
    program = Program.trace(OneKey(), (torch.zeros(1, 4, 1),), Origin("test"))
    after = rewrites.standard(program)
    assert operators(after) == []
    assert [s.name for s in after.history] == ["fold_softmax"]
    x = torch.randn(3, 4, 1)
    torch.testing.assert_close(after.run(x)[0], x)
    wide = rewrites.standard(Program.trace(OneKey(), (torch.zeros(1, 4, 2),), Origin("test")))
    assert "softmax" in operators(wide)


def test_sums_of_six_axes_are_taken_in_five() -> None:
    class Relative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows, columns = x.view(1, 2, 3, 3, 2, 2).mean(5), x.view(1, 2, 3, 3, 2, 2).mean(4)
            wide = x.view(1, 2, 3, 3, 2, 2) + rows[..., :, None] - columns[..., None, :]
            return wide.view(1, 2, 9, 4).softmax(-1)

    program = Program.trace(Relative(), (torch.zeros(1, 2, 9, 4),), Origin("test"))
    after = rewrites.standard(program)
    assert (
        max(
            n.meta["val"].ndim
            for n in after.module().graph.nodes
            if "val" in n.meta and hasattr(n.meta["val"], "ndim")
        )
        <= 5
    )
    x = torch.randn(1, 2, 9, 4)
    torch.testing.assert_close(after.run(x)[0], Relative()(x))


class InPlace(nn.Module):
    """Readers of a value before and after it is changed in place."""

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        before = y + 1
        after = nn.functional.relu_(y)
        return before + after + y


class Prefixed(nn.Module):
    """A constant in front of rows, and one that is added to them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.cat([self.first.expand(1, 2, 1, 3), x], 2)
        return rows + self.first.expand(1, 2, 5, 3)


def test_an_expanded_constant_is_written_down_only_where_it_is_concatenated() -> None:
    traced = Program.trace(Prefixed(), (torch.zeros(1, 2, 4, 3),), Origin("test"))
    after = apply(traced, rewrites.load("fold_constants"))
    assert operators(traced).count("expand") == 2
    assert operators(after).count("expand") == 1
    x = torch.randn(1, 2, 4, 3)
    assert torch.equal(after.run(x)[0], traced.run(x)[0])


def test_in_place_operators_become_functions_and_later_readers_see_the_result() -> None:
    program = Program.trace(InPlace(), (torch.zeros(1, 5),), Origin("test"))
    assert "relu_" in operators(program)
    after = rewrites.standard(program)
    assert "relu_" not in operators(after)
    x = torch.tensor([[-2.0, -0.0, 1.0, 3.0, -5.0]])
    assert torch.equal(after.run(x)[0], InPlace()(x))


class Written(nn.Module):
    """Writes into views of a value, of constants, and of views that are read before and after."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        x = x * 1.0
        pairs, first, copied = x.view(2, -1, 4), x[:, 0], x.transpose(1, 2).flatten(1)
        x[:, 1] = first * 2
        x[:, 2:4, :2] += 1
        x[:, -1:, 3] = 7
        pairs[:, -2].relu_()
        turned = x.permute(0, 2, 1)
        turned[:, 0] = 5.0
        table = torch.zeros(2, 6, 4)
        table[:, :, 1] = torch.arange(6)
        x[0].mul_(2)
        first.add_(1)
        turned[1].zero_()
        return x + table, first.sum(1), pairs * 2, turned.flatten(1), copied


def test_what_is_written_into_views_is_seen_by_all_that_share_their_memory() -> None:
    program = Program.trace(Written(), (torch.zeros(2, 6, 4),), Origin("test"))
    after = rewrites.standard(program)
    left = operators(after)
    assert not any(name.endswith("_") or name in ("fill", "zero", "copy") for name in left)
    x = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(0))
    for found, expected in zip(after.run(x), Written()(x), strict=True):
        assert torch.equal(found, expected)


def test_a_write_into_every_second_row_is_refused_with_its_line() -> None:
    class Strided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            x = x + 1
            x[:, ::2].mul_(2)
            return x

    program = Program.trace(Strided(), (torch.zeros(1, 6),), Origin("test"))
    with pytest.raises(UnsupportedError, match="written into slice of a value") as caught:
        rewrites.standard(program)
    assert str(caught.value.at).startswith("mul_ (test_rewrites.py:")


def test_a_rewrite_that_finds_nothing_gives_the_program_back(program: Program) -> None:
    once = rewrites.standard(program)
    assert rewrites.standard(once) is once


def test_new_nodes_keep_where_they_came_from(program: Program) -> None:
    after = rewrites.standard(program, ("softmax",))
    lines = {
        g.op_name(n): str(g.where(n).source) for n in g.float_ops(after.module())
    }  # fmt: skip
    assert lines["exp"].startswith("test_rewrites.py:")


@dataclass(frozen=True)
class Wrong:
    """Breaks its promise: x + y becomes x − y."""

    name: ClassVar[str] = "wrong"

    def apply(self, module: GraphModule) -> int:
        for node in module.graph.nodes:
            if node.target is g.aten.add.Tensor:
                node.target = g.aten.sub.Tensor
                return 1
        return 0


def test_a_wrong_rewrite_is_caught(program: Program) -> None:
    with pytest.raises(EdgemixError, match="the rewrite wrong changed the result by"):
        apply(program, Wrong())


@pytest.mark.parametrize(
    "source", ["edgemix.models.demo:create", "edgemix.models.demo:pooling", "timm:test_vit"]
)
def test_a_rewrite_that_counts_nothing_leaves_all_as_it_was(source: str) -> None:
    """The runner gives the same graph to the next: it makes no copy for each."""
    program, silent = sources.load(source), 0
    for name in (*rewrites.STANDARD, *SPLITS):
        module = program.module()
        before = str(module.graph), sorted(module.state_dict())
        if rewrites.load(name).apply(module) == 0:
            assert (str(module.graph), sorted(module.state_dict())) == before, name
            silent += 1
        program = apply(program, rewrites.load(name))
    assert silent > 5


class Chaos(nn.Module):
    """A logistic map, sixteen times over: each doubles a rounding."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(2, eps=0.3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x).sigmoid()
        for _ in range(16):
            x = 4 * x * (1 - x)
        return x


def test_a_model_that_blows_roundings_up_is_no_fault_of_a_rewrite() -> None:
    x = torch.randn(1, 2, 4, 4)
    chaos = Program.trace(Chaos().eval(), (x,), Origin("test"))
    after = rewrites.standard(chaos)
    assert "fold_norm" in [step.name for step in after.history]
    assert float((after.call(x)[0] - chaos.call(x)[0]).abs().max()) > TOLERANCE
    with pytest.raises(EdgemixError, match="the rewrite wrong changed the result by"):
        apply(Program.trace(nn.Sequential(Chaos(), Adds()), (x,), Origin("test")), Wrong())


class Adds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 10


def test_names_in_the_table_are_the_classes_own() -> None:
    for name in (*rewrites.STANDARD, *SPLITS):
        assert rewrites.load(name).name == name


class Norms(nn.Module):
    """Layer and group norms whose affine maps can and cannot move into what follows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LayerNorm(6)
        self.into = nn.Linear(6, 6)
        self.alone = nn.LayerNorm((5, 6))
        self.plain = nn.LayerNorm(6, elementwise_affine=False)
        self.one = nn.GroupNorm(1, 5)
        self.groups = nn.GroupNorm(5, 5, eps=1e-3)
        for p in self.parameters():
            nn.init.normal_(p)

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(self.layer(x))
        x = self.alone(x).tanh() + self.plain(x)
        return self.groups(self.one(x) + x)


def test_norms_become_means_squares_and_one_table() -> None:
    torch.manual_seed(0)
    module = Norms()
    program = Program.trace(module, (torch.zeros(1, 5, 6),), Origin("test"))
    after = rewrites.standard(program, ("norm",))
    names = operators(after)
    assert not {"layer_norm", "group_norm"} & set(names)
    assert names.count("rsqrt") == 5
    # γ and β of the first moved into the linear layer; of four norms with γ three are products.
    assert names.count("linear") == 1 and names.count("mul") == 2 * 5 + 3
    x = torch.randn(4, 5, 6) * 3 + 1
    torch.testing.assert_close(after.run(x)[0], module(x), rtol=1e-4, atol=1e-4)
    steps = [n for n in g.float_ops(after.module()) if g.op_name(n) == "rsqrt"]
    assert all(str(g.where(n).source).startswith("test_rewrites.py:") for n in steps)


class Squares(nn.Module):
    """Root mean square norms: one whose γ moves, one without it and with an ε of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.into = nn.RMSNorm(6), nn.Linear(6, 6)
        self.plain = nn.RMSNorm((5, 6), eps=1e-3, elementwise_affine=False)
        nn.init.normal_(self.first.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.into(self.first(x)))


def test_norms_of_root_mean_squares_become_squares_and_one_table() -> None:
    torch.manual_seed(0)
    module = Squares()
    program = Program.trace(module, (torch.zeros(1, 5, 6),), Origin("test"))
    after = rewrites.standard(program, ("norm",))
    names = operators(after)
    assert "rms_norm" not in names and "sub" not in names
    assert (names.count("rsqrt"), names.count("linear"), names.count("mul")) == (2, 1, 4)
    x = torch.randn(4, 5, 6) * 3 + 1
    torch.testing.assert_close(after.run(x)[0], module(x), rtol=1e-5, atol=1e-5)


class Quotients(nn.Module):
    """Divisions by a value, by a number, by a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("c", torch.tensor([2.0, 4.0, 8.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x / (x * x + 1) + x / 4 + x / self.c


def test_only_quotients_of_two_values_are_split() -> None:
    program = Program.trace(Quotients(), (torch.zeros(1, 3),), Origin("test"))
    after = rewrites.standard(program, ("division",))
    names = operators(after)
    assert names.count("reciprocal") == 1
    assert names.count("div") == 1
    x = torch.tensor([[-3.0, -0.0, 5.0], [1e3, 0.5, 0.0]])
    torch.testing.assert_close(after.run(x)[0], Quotients()(x))


class Reversed(nn.Module):
    """Differences with the number first."""

    def forward(self, x: Tensor) -> Tensor:
        return (1 - x) * torch.rsub(x, 3, alpha=2) + torch.sub(x, 2, alpha=3)


def test_a_number_minus_a_value_is_a_difference_of_tensors() -> None:
    program = Program.trace(Reversed(), (torch.zeros(1, 4),), Origin("test"))
    after = rewrites.standard(program)
    for node in g.float_ops(after.module()):
        if g.op_name(node) in ("sub", "mul") and not node.kwargs:
            assert all(isinstance(a, torch.fx.Node) for a in node.args[:2]), node
    x = torch.tensor([[-1.5, 0.0, 2.0, 7.25]])
    assert torch.equal(after.run(x)[0], Reversed()(x))


class Odds(nn.Module):
    """Aliases, stacks, casts and constants that are computed."""

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor([0.0, 1.0, 2.0]))

    def forward(self, x: Tensor) -> Tensor:
        spikes = (x >= 0.5).to(x.dtype)
        pair = torch.stack([x[:, 0:], spikes * torch.exp(self.log_scale)], 1)
        return torch.cat([pair, torch.ones(1, 1, 3)], 1)


def test_what_is_no_operator_of_any_target_is_written_with_others() -> None:
    program = Program.trace(Odds(), (torch.zeros(1, 3),), Origin("test"))
    after = rewrites.standard(program)
    names = {g.op_name(n) for n in g.float_ops(after.module())}
    assert names == {"ge", "_to_copy", "unsqueeze", "mul", "cat"}
    x = torch.tensor([[0.25, 0.5, 3.0]])
    torch.testing.assert_close(after.run(x)[0], program.run(x)[0])
    assert after.parameters == 6  # exp of three parameters, and three ones


class Narrowed(nn.Module):
    """Counted from the end, and from the start."""

    def forward(self, x: Tensor) -> Tensor:
        return x.narrow(-1, -3, 2) * x.narrow(1, 1, 2)


def test_what_narrow_takes_is_a_slice() -> None:
    program = Program.trace(Narrowed(), (torch.zeros(1, 5),), Origin("test"))
    after = rewrites.standard(program)
    assert {g.op_name(n) for n in g.float_ops(after.module())} == {"slice", "mul"}
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0, 16.0]])
    assert after.run(x)[0].tolist() == [[8.0, 32.0]]
