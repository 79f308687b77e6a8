"""Whole models: converted by coremltools, saved, opened and run, against the torch modules.

A float32 model computes what torch does, in another order at most: every layer is wrong by less
than its number of additions, so 1e-5 of the largest output is 84 units of it, which models of this
depth do not use up. In float16 every operation is rounded once, half a unit or 2**-11 relative;
a value that passes n operations, none of which amplifies it, is wrong by n · 2**-11 of the largest.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
from coremltools.converters.mil.mil import Builder as mb
from coremltools.converters.mil.mil import types
from coremltools.converters.mil.mil.ops.registry import SSAOpRegistry
from torch import Tensor, nn
from torch.nn import functional

from edgemix.errors import UnsupportedError
from edgemix.targets.coreml.evaluate import _CONTROL, Evaluator
from edgemix.targets.coreml.kernels import KERNELS
from edgemix.targets.coreml.package import open_package

# What jit.trace says of itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore::torch.jit.TracerWarning", "ignore::DeprecationWarning"
)

Load = Callable[..., Evaluator]


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.mlp = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(b, n, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(b, n, 32))
        found: Tensor = x + self.mlp(x)
        return found


class Upsample(nn.Module):
    def __init__(self, mode: str, corners: bool | None) -> None:
        super().__init__()
        self.options = {"mode": mode, "align_corners": corners}
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.interpolate(self.conv(x), scale_factor=2.0, **self.options)


class Pieces(nn.Module):
    """What moves values."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split([1, 3], dim=1)
        padded = functional.pad(a, (1, 2), mode="reflect").cumsum(-1)
        mixed = torch.cat([padded[..., 1:-2], b.flip(1)], 1).transpose(1, 2)
        chosen = mixed[:, torch.tensor([3, 0, 3])].clamp(-3, 3)
        values, places = chosen.topk(2, -1)
        return torch.where(values > 0, values, places.to(x.dtype)).pow(2).sum(1)


def relu_net() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(16, 10), nn.Softmax(-1),
    )  # fmt: skip


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    # The module, its input, and how many operations a value passes in float16.
    "mlp": (
        lambda: nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 5), nn.Sigmoid()),
        (3, 20), 6,
    ),
    "convnet": (relu_net, (2, 3, 16, 16), 11),
    "attention": (Attention, (2, 6, 32), 40),
    "depthwise": (
        lambda: nn.Sequential(
            nn.Conv2d(8, 8, 5, padding=2, groups=8), nn.GroupNorm(2, 8), nn.SiLU(),
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
        ),
        (2, 8, 9, 7), 20,
    ),
    "bilinear": (lambda: Upsample("bilinear", False), (1, 3, 5, 6), 6),
    "bilinear, corners": (lambda: Upsample("bilinear", True), (1, 3, 5, 6), 6),
    "nearest": (lambda: Upsample("nearest", None), (1, 3, 5, 6), 4),
}  # fmt: skip


def exported(module: nn.Module, shape: tuple[int, ...]) -> Any:
    return torch.export.export(module.eval(), (torch.zeros(shape),)).run_decompositions({})


def relative(found: Tensor, expected: Tensor) -> float:
    """The largest difference, as a share of the largest output."""
    return ((found.float() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("precision", ["FLOAT32", "FLOAT16"])
@pytest.mark.parametrize("name", MODELS)
def test_models(name: str, precision: str, evaluator: Load) -> None:
    make, shape, depth = MODELS[name]
    torch.manual_seed(0)
    module = make()
    loaded = evaluator(
        exported(module, shape), compute_precision=ct.precision[precision],
        minimum_deployment_target=[ct.target.iOS16, ct.target.iOS18][len(name) % 2],
    )  # fmt: skip
    x = torch.randn(shape)
    with torch.no_grad():
        expected = module(x)
    (found,) = loaded.run({next(iter(loaded.inputs)): x}).values()
    assert relative(found, expected) <= (1e-5 if precision == "FLOAT32" else depth * 2**-11)


@pytest.mark.parametrize(
    "target", [ct.target.iOS15, ct.target.iOS16, ct.target.iOS17, ct.target.iOS18]
)
def test_moving_values_in_every_opset(target: ct.target, evaluator: Load) -> None:
    x = torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(0))
    traced = torch.jit.trace(Pieces(), x)
    loaded = evaluator(
        traced, inputs=[ct.TensorType(shape=x.shape)], minimum_deployment_target=target,
        compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    (found,) = loaded.run({next(iter(loaded.inputs)): x}).values()
    assert relative(found, Pieces()(x)) <= 1e-6


@pytest.mark.parametrize("both", [False, True])
def test_lstm_that_was_traced(both: bool, evaluator: Load) -> None:
    torch.manual_seed(0)
    module = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=both).eval()
    x = torch.randn(2, 7, 6)
    with torch.no_grad():
        expected = module(x)[0]
    traced = torch.jit.trace(First(module), x)
    for precision, bound in ((ct.precision.FLOAT32, 1e-5), (ct.precision.FLOAT16, 2 * 7 * 2**-11)):
        loaded = evaluator(
            traced, inputs=[ct.TensorType(shape=x.shape)], compute_precision=precision
        )
        (found,) = loaded.run({next(iter(loaded.inputs)): x}).values()
        assert relative(found, expected) <= bound


class First(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.module(x)[0]
        return found


class Leaky(nn.Module):
    """Two states, of which one is also written in a slice."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("level", torch.zeros(1, 4, dtype=torch.float16))
        self.register_buffer("last", torch.zeros(3, 4, dtype=torch.float16))

    def forward(self, x: Tensor) -> Tensor:
        self.level.mul_(0.5).add_(x)
        self.last[1:2] = self.level
        return self.level + self.last.sum(0, keepdim=True)


def test_states_change_in_place_over_many_steps(evaluator: Load) -> None:
    module = Leaky().eval()
    traced = torch.jit.trace(Leaky().eval(), torch.zeros(1, 4, dtype=torch.float16))
    states = [
        ct.StateType(ct.TensorType(shape=shape, dtype=np.float16), name=name)
        for name, shape in (("level", (1, 4)), ("last", (3, 4)))
    ]
    loaded = evaluator(
        traced,
        inputs=[ct.TensorType(shape=(1, 4), dtype=np.float16)],
        outputs=[ct.TensorType(dtype=np.float16)],
        states=states,
    )
    assert set(loaded.states) == {"level", "last"}
    held = loaded.start()
    given = held
    (name,) = loaded.inputs
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        # Halves of integers of this size are exact in float16, whoever rounds when.
        x = (torch.randint(-8, 9, (1, 4), generator=generator) * 4).to(torch.float16)
        with torch.no_grad():
            module.level.copy_(module.level.round())
            held["level"] = held["level"].round()
            expected = module(x)
        (found,) = loaded.run({name: x}, held).values()
        assert torch.equal(found, expected)
        assert torch.equal(held["level"], module.level)
        assert torch.equal(held["last"], module.last)
    assert held is given and held["level"].any()
    # Without states every run begins anew.
    (fresh,) = loaded.run({name: torch.ones(1, 4)}).values()
    assert torch.equal(fresh, torch.full((1, 4), 2.0, dtype=torch.float16))


def build(*specs: Any, target: ct.target = ct.target.iOS17) -> Callable[[Any], Any]:
    return mb.program(input_specs=list(specs), opset_version=target)


def in_float32(program: Any, **options: Any) -> dict[str, Any]:
    return {"source": program, "compute_precision": ct.precision.FLOAT32} | options


VECTOR = mb.TensorSpec(shape=(3,))
NUMBER = mb.TensorSpec(shape=(1,), dtype=types.int32)


def test_branches_and_loops(evaluator: Load) -> None:
    @build(VECTOR, NUMBER)
    def program(x: Any, n: Any) -> Any:
        n = mb.squeeze(x=n)

        def body(i: Any, total: Any) -> Any:
            # A branch in a loop, which reads what is outside of both.
            even = mb.equal(x=mb.mod(x=i, y=2), y=0)
            more = mb.cond(
                pred=even,
                _true_fn=lambda: mb.add(x=total, y=x),
                _false_fn=lambda: mb.mul(x=total, y=2.0),
            )
            return mb.add(x=i, y=1), more

        return mb.while_loop(_cond=lambda i, _: mb.less(x=i, y=n), _body=body, loop_vars=(0, x))[1]

    loaded = evaluator(**in_float32(program))
    x = torch.tensor([1.0, -2.0, 0.5])
    for n in range(6):
        total = x
        for i in range(n):
            total = total + x if i % 2 == 0 else total * 2
        (found,) = loaded.run({"x": x, "n": torch.tensor([n])}).values()
        assert torch.equal(found, total)


def test_lists(evaluator: Load) -> None:
    """Written in a loop, grown, gathered; what was never written is zeros, as in Core ML."""

    @build(VECTOR, NUMBER)
    def program(x: Any, n: Any) -> Any:
        n = mb.squeeze(x=n)
        kept = mb.make_list(init_length=2, elem_shape=(3,))
        nothing = mb.list_read(ls=kept, index=1)

        def body(i: Any, ls: Any) -> Any:
            scaled = mb.mul(x=x, y=mb.cast(x=i, dtype="fp32"))
            return mb.add(x=i, y=1), mb.list_write(ls=ls, index=i, value=scaled)

        _, kept = mb.while_loop(
            _cond=lambda i, _: mb.less(x=i, y=n), _body=body, loop_vars=(1, kept)
        )
        kept = mb.list_scatter(
            ls=kept, indices=[7, 0], value=np.array([[7, 7, 7], [8, 8, 8]], np.float32)
        )
        return nothing, mb.list_gather(ls=kept, indices=[0, 2, 3, 6, 7]), mb.list_length(ls=kept)

    loaded = evaluator(**in_float32(program))
    x = torch.tensor([1.0, -2.0, 0.5])
    nothing, rows, length = loaded.run({"x": x, "n": torch.tensor([3])}).values()
    assert nothing.tolist() == [0, 0, 0] and length.tolist() == 8
    expected = [[8, 8, 8], (2 * x).tolist(), [0, 0, 0], [0, 0, 0], [7, 7, 7]]
    assert rows.tolist() == expected


@pytest.mark.parametrize("shape", ["enumerated", "range"])
def test_flexible_batches(shape: str, evaluator: Load) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(6, 4), nn.Flatten(0), nn.Unflatten(0, (-1, 2)), nn.Softmax(0))
    sizes: Any = ct.Shape((ct.RangeDim(1, 8, 2), 6))
    if shape == "enumerated":
        sizes = ct.EnumeratedShapes([(1, 6), (2, 6), (5, 6)])
    loaded = evaluator(
        torch.jit.trace(module, torch.zeros(2, 6)), inputs=[ct.TensorType(shape=sizes)],
        compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    (name,) = loaded.inputs
    assert loaded.inputs[name].shape == (None, 6)
    for n in (1, 2, 5):
        x = torch.randn(n, 6)
        with torch.no_grad():
            expected = module(x)
        assert relative(loaded.run({name: x})[loaded.outputs[0]], expected) <= 1e-5


@pytest.mark.parametrize("labels", [["cat", "dog", "bird"], [10, 20, 30]])
def test_classifiers(labels: list[Any], evaluator: Load) -> None:
    loaded = evaluator(
        torch.jit.trace(nn.Softmax(-1), torch.zeros(1, 3)), inputs=[ct.TensorType(shape=(1, 3))],
        classifier_config=ct.ClassifierConfig(labels), compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    (name,) = loaded.inputs
    x = torch.tensor([[0.0, 2.0, 1.0]])
    label, shares = loaded.run({name: x}).values()
    assert label == labels[1] and type(label) is type(labels[1])
    assert list(shares) == labels
    assert torch.tensor(list(shares.values())).tolist() == pytest.approx(x.softmax(-1)[0].tolist())


@pytest.mark.parametrize("layout", ["RGB", "BGR", "GRAYSCALE"])
def test_images(layout: str, evaluator: Load) -> None:
    """Numbers of a picture as Core ML gives them, 0 to 255; scale and bias are in the program."""
    channels = 1 if layout == "GRAYSCALE" else 3
    torch.manual_seed(0)
    conv = nn.Conv2d(channels, 2, 3)
    bias = [-0.5, -0.4, -0.6][:channels]
    loaded = evaluator(
        torch.jit.trace(conv, torch.zeros(1, channels, 5, 4)),
        inputs=[
            ct.ImageType(
                shape=(1, channels, 5, 4), scale=1 / 127.0,
                bias=bias if channels == 3 else bias[0], color_layout=ct.colorlayout[layout],
            )
        ],
        compute_precision=ct.precision.FLOAT32,
    )  # fmt: skip
    (name,) = loaded.inputs
    x = torch.randint(0, 256, (1, channels, 5, 4)).float()
    with torch.no_grad():
        expected = conv(x / 127 + torch.tensor(bias).reshape(1, -1, 1, 1))
    (found,) = loaded.run({name: x}).values()
    assert relative(found, expected) <= 1e-5


def test_who_watches_sees_every_result(evaluator: Load) -> None:
    @build(VECTOR)
    def program(x: Any) -> Any:
        return mb.relu(x=mb.sub(x=x, y=1.0, name="less"), name="positive")

    seen: dict[str, tuple[str, list[float]]] = {}
    loaded = evaluator(**in_float32(program))
    loaded.run(
        {"x": torch.tensor([0.0, 1.0, 3.0])},
        watch=lambda kind, name, value: seen.update({name: (kind, value.tolist())}),
    )
    assert seen == {"less": ("sub", [-1, 0, 2]), "positive": ("relu", [0, 0, 2])}


def test_every_result_is_rounded_to_its_declared_type(evaluator: Load) -> None:
    """A number too small to change 1 in float16 is lost between two operations."""

    @build(VECTOR)
    def program(x: Any) -> Any:
        return mb.sub(x=mb.add(x=x, y=1.0), y=1.0)

    x = torch.tensor([2**-12, 2**-10, 3 * 2**-11])
    for precision, expected in (
        ("FLOAT32", x.tolist()),
        ("FLOAT16", [0.0, 2**-10, 2**-9]),
    ):
        loaded = evaluator(program, compute_precision=ct.precision[precision])
        seen: list[Tensor] = []
        (found,) = loaded.run({"x": x}, watch=lambda _, __, value: seen.append(value)).values()
        assert found.tolist() == expected
        assert {v.dtype for v in seen} <= {torch.float32, getattr(torch, precision.lower())}


def test_several_functions(tmp_path: Path, saved: Callable[..., Path]) -> None:
    def times(factor: float) -> Path:
        @build(VECTOR, target=ct.target.iOS18)
        def program(x: Any) -> Any:
            return mb.mul(x=x, y=factor, name="y")

        return saved(**in_float32(program))

    descriptor = ct.utils.MultiFunctionDescriptor()
    descriptor.add_function(str(times(2.0)), "main", "twice")
    descriptor.add_function(str(times(3.0)), "main", "thrice")
    descriptor.default_function_name = "twice"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ct.utils.save_multifunction(descriptor, str(tmp_path / "both.mlpackage"))
    package = open_package(tmp_path / "both.mlpackage")
    for name, factor in (("twice", 2), ("thrice", 3)):
        (found,) = Evaluator.load(package, name).run({"x": torch.ones(3)}).values()
        assert found.tolist() == [factor] * 3


REFUSED = {
    "_const_symbolic", "affine", "conv_quantized", "crop_resize", "non_maximum_suppression",
    "random_bernoulli", "random_categorical", "random_normal", "random_uniform",
}  # fmt: skip
"""Operations of MIL that the evaluator does not compute."""


def test_every_operation_of_mil_is_computed_or_refused() -> None:
    known = set(KERNELS) | set(_CONTROL) | {"const"}
    # write_state is in files only: coremltools builds it from its own dialect.
    assert set(SSAOpRegistry.core_ops) == (known | REFUSED) - {"write_state"}
    assert not known & REFUSED


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_parameters_are_those_of_mil(name: str) -> None:
    """In every opset: what MIL takes is taken, what it need not be given is not asked for."""
    kernel, every = KERNELS[name], set()
    for made in SSAOpRegistry.core_ops[name].values():
        given = made.input_spec.input_types
        assert set(given) <= set(kernel.takes)
        assert kernel.required <= {p for p, kind in given.items() if not kind.optional}
        every |= set(given)
    assert set(kernel.takes) == every


def test_what_is_refused_is_named(evaluator: Load) -> None:
    @build(VECTOR)
    def program(x: Any) -> Any:
        return mb.add(x=x, y=mb.random_uniform(shape=[3], low=0.0, high=1.0))

    with pytest.raises(UnsupportedError, match="does not evaluate the operation random_uniform"):
        evaluator(**in_float32(program))
