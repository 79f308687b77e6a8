"""Branches of one input become one convolution: which do, which do not, and what comes out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models.repvit import RepVit
from timm.utils.model import reparameterize_model
from torch import Tensor, nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.models.scale import Scale
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply

_C = 4


class Sum(nn.Module):
    """What a function makes of an input and of layers."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.function(x, *self.layers)
        return y


def conv(kernel: Any = 3, groups: int = 1, stride: int = 1, **options: Any) -> nn.Conv2d:
    sizes = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    options.setdefault("padding", tuple(k // 2 for k in sizes))
    return nn.Conv2d(_C, _C, sizes, stride, groups=groups, **options)


def depthwise(kernel: Any = 3, **options: Any) -> nn.Conv2d:
    return conv(kernel, _C, **options)


def norm(channels: int = _C) -> nn.Module:
    layer = nn.BatchNorm2d(channels)
    assert layer.running_mean is not None and layer.running_var is not None
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.normal_(layer.bias)
    layer.running_mean.normal_()
    layer.running_var.uniform_(0.3, 3)
    return layer


def joined(module: nn.Module, x: Tensor) -> tuple[Program, list[str]]:
    """The program after the rewrite, which computes the same, and its operators."""
    module = module.eval()
    program = Program.trace(module, (x,), Origin("test"))
    after = apply(program, *map(rewrites.load, ("fold_norm", "join_branches")))
    with torch.no_grad():
        torch.testing.assert_close(after.run(x)[0], module(x), rtol=1e-4, atol=1e-5)
    return after, [g.op_name(n) for n in g.float_ops(after.module())]


def image(height: int = 7, width: int = 5) -> Tensor:
    return torch.randn(1, _C, height, width, generator=torch.Generator().manual_seed(0))


def products(program: Program) -> int:
    """Of all convolutions, for one position."""
    convolutions = [n for n in g.float_ops(program.module()) if n.target in g.CONVOLUTION]
    return sum(n.args[1].meta["val"].numel() for n in convolutions)  # type: ignore[union-attr,misc]


_odd = st.sampled_from([1, 3, 5])


@given(
    st.lists(st.tuples(_odd, _odd, st.sampled_from([1, 2, _C]), st.sampled_from([1, -1])),
             min_size=2, max_size=4),
    st.integers(1, 2), st.integers(1, 8), st.integers(1, 8),
)  # fmt: skip
@settings(max_examples=12, deadline=None)
def test_any_branches_give_the_same_sum_in_no_more_products(
    plan: list[tuple[int, int, int, int]], stride: int, height: int, width: int
) -> None:
    def summed(x: Tensor, *layers: nn.Module) -> Tensor:
        total: Tensor = layers[0](x)
        for layer, (*_, sign) in zip(layers[1:], plan[1:], strict=True):
            total = total + layer(x) if sign > 0 else total - layer(x)
        return total

    layers = [conv((h, w), groups, stride) for h, w, groups, _ in plan]
    after, names = joined(Sum(summed, *layers), image(height, width))
    assert products(after) <= sum(layer.weight.numel() for layer in layers)
    assert names.count("add") + names.count("sub") == names.count("conv2d") - 1
    if len(set(plan)) == 1:
        assert names == ["conv2d"]


_JOIN: dict[str, Sum] = {
    "depthwise": Sum(lambda x, a, b: a(x) + b(x), depthwise(5), depthwise(3)),
    "point and window": Sum(lambda x, a, b: a(x) - b(x), conv(1), conv(3)),
    "a norm beside a dense kernel": Sum(
        lambda x, a, b, c: a(x) + b(x) + c(x), conv(3), conv(1), norm()
    ),
    "crosses that one kernel covers": Sum(
        lambda x, a, b, c: a(x) + b(x) + c(x), conv((1, 5)), conv((5, 1)), conv(5)
    ),
    "groups in groups": Sum(lambda x, a, b: a(x) + b(x), conv(3, 2), depthwise(3)),
    "stride": Sum(lambda x, a, b: a(x) + b(x), conv(3, stride=2), conv(1, stride=2)),
    "a sum that starts from zero": Sum(lambda x, *all: sum(f(x) for f in all), conv(3), conv(1)),
    "a tree": Sum(lambda x, a, b, c, d: (a(x) - b(x)) - (c(x) - d(x)), *(conv() for _ in "abcd")),
    "the same twice": Sum(lambda x, a: (y := a(x)) + y, conv(3)),
    "factors": Sum(lambda x, a, b: 0.5 * a(x) + b(x) * 3, conv(3), conv(1)),
    "a norm behind the sum": Sum(
        lambda x, a, b, c: c(a(x) + b(x) + x), depthwise(3), depthwise(1), norm()
    ),
    "a residual beside branches": Sum(
        lambda x, a, b, c: x + c(a(x) - b(x)), depthwise(3), norm(), Scale(_C, -0.7)
    ),
    "even kernels of one centre": Sum(
        lambda x, a, b: a(x) + b(x), conv(4, padding=1), conv(2, padding=0)
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", _JOIN)
def test_one_convolution_is_left(name: str) -> None:
    _, names = joined(_JOIN[name], image())
    assert names == ["conv2d"]


_LEAVE: dict[str, tuple[Sum, int]] = {
    "an even kernel has another centre": (
        Sum(lambda x, a, b: a(x) + b(x),
            conv(2, stride=2, padding=1), conv(1, stride=2, padding=0)), 2),
    "dilation": (Sum(lambda x, a, b: a(x) + b(x), conv(3, dilation=2, padding=2), conv(3)), 2),
    "other strides": (Sum(lambda x, a, b: a(x) + b(x),
                          conv((1, 1), stride=1), conv(7, stride=7)), 2),
    "more products": (Sum(lambda x, a, b: a(x) + b(x), depthwise(5), conv(1)), 2),
    "crosses": (Sum(lambda x, a, b: a(x) + b(x), depthwise((1, 5)), depthwise((5, 1))), 2),
    "another input": (Sum(lambda x, a, b: a(x) + b(x.relu()), conv(3), conv(1)), 2),
    "another reader": (Sum(lambda x, a, b: (y := a(x)) + b(x) + y.relu(), conv(3), conv(1)), 2),
    "a residual of one kernel": (Sum(lambda x, a: x + a(x), depthwise(3)), 1),
    "a residual of a dense kernel": (Sum(lambda x, a, b: x + a(x) + b(x), conv(3), conv(1)), 1),
    "a sum with a factor": (Sum(lambda x, a, b: torch.add(a(x), b(x), alpha=2), conv(), conv()), 2),
}  # fmt: skip


@pytest.mark.parametrize("name", _LEAVE)
def test_what_is_no_branch_stays(name: str) -> None:
    module, convolutions = _LEAVE[name]
    _, names = joined(module, image(1, 1) if name == "other strides" else image())
    assert names.count("conv2d") == convolutions
    assert "add" in names


def test_other_terms_stay_in_their_places_and_with_their_signs() -> None:
    module = Sum(lambda x, a, b: x.tanh() - a(x) - x.relu() - b(x) + 2.5, conv(3), conv(1))
    _, names = joined(module, image())
    assert sorted(names) == ["add", "add", "conv2d", "relu", "sub", "tanh"]


def test_linear_operators_and_one_axis_join_too() -> None:
    heads = Sum(lambda x, a, b: (a(x) + b(x)) / 2, nn.Linear(5, 3), nn.Linear(5, 3, bias=False))
    assert joined(heads, torch.randn(2, 5))[1] == ["linear", "div"]
    rows = [nn.Conv1d(3, 3, k, padding=k // 2, groups=3) for k in (5, 1)]
    module = Sum(lambda x, a, b: x - (a(x) + b(x)), *rows)
    assert joined(module, torch.randn(1, 3, 7))[1] == ["conv1d"]


def test_a_joined_convolution_says_where_the_sum_stood() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = _JOIN["depthwise"]

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.block(x)
            return y

    after, _ = joined(Model(), image())
    (node,) = g.float_ops(after.module())
    assert g.where(node).module == "block"
    assert str(g.where(node).source).startswith("test_join_branches.py:")
    assert (after.history[-1].name, after.history[-1].options) == ("join_branches", {"places": 1})


_SMALL = {"depth": (1, 1, 1, 1), "embed_dim": (8, 8, 8, 8)}
_WHOLE = ("repvit_m1", "repvit_m0_9", "fastvit_t8", "mobileone_s0")


@pytest.mark.parametrize(
    ("name", "options"),
    [("repvit_m0_9", _SMALL)] + [pytest.param(n, {}, marks=pytest.mark.slow) for n in _WHOLE],
)
def test_published_models_come_to_their_authors_inference_form(
    name: str, options: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    module = timm.create_model(name, num_classes=10, **options).eval()
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            # Without training deep sums grow: the norms hold them.
            seen_mean, seen_variance = layer.running_mean, layer.running_var
            assert seen_mean is not None and seen_variance is not None
            seen_mean.normal_(0, 0.1)
            seen_variance.uniform_(1, 2)
            nn.init.uniform_(layer.weight, 0.3, 0.6)
    x = torch.randn(1, 3, 32, 32)
    program = Program.trace(module, (x,), Origin(name))
    after = rewrites.standard(program)
    fused = reparameterize_model(module)
    if isinstance(fused, RepVit):
        fused.fuse()  # type: ignore[no-untyped-call]  # the heads too
    theirs = rewrites.standard(Program.trace(fused, (x,), Origin(name)))

    def operators(p: Program) -> list[str]:
        return sorted(g.op_name(n) for n in g.float_ops(p.module()))

    assert operators(program).count("conv2d") > operators(after).count("conv2d")
    assert operators(after) == operators(theirs)
    with torch.no_grad():
        expected = module(x)
    span = float(expected.max() - expected.min())
    assert float((after.run(x)[0] - expected).abs().max()) < 1e-4 * span
    assert rewrites.standard(after) is after
