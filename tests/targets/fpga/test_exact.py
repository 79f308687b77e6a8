"""Firmware and RTL against the program, bit for bit, on inputs chosen to break them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from edgemix import targets
from edgemix.encoding import Encoding
from edgemix.errors import UnsupportedError
from edgemix.program import Program
from edgemix.quantize.recipe import LayerException
from edgemix.targets.base import Artifact, Target
from edgemix.targets.fpga.hardware import Hardware, LayerKnobs
from edgemix.targets.hls4ml.knobs import nearest_reuse


class Vision(nn.Module):
    """Strided and padded windows, depthwise, groups, pools on odd shapes, batch norm, LayerScale."""

    shape = (3, 5, 7)

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.scale = nn.Parameter(torch.tensor([0.5, -0.11, 0.03, 1.7]).reshape(4, 1, 1))
        self.point = nn.Conv2d(4, 6, 1, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.window(x)))
        x = x + self.scale * self.depthwise(x)
        x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
        x = functional.avg_pool2d(x, (1, 3), 1, (0, 1), count_include_pad=True) - x
        x = functional.max_pool2d(self.point(x), 2, 1)
        x = functional.max_pool2d(x, (2, 3), ceil_mode=True)
        return x.flatten(1)


class Tokens(nn.Module):
    """Attention with softmax and layer norms, chunks, flips, means that divide by five."""

    shape = (5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(6)
        self.qkv = nn.Linear(6, 18)
        self.head = nn.Linear(6, 4)
        self.norm.weight.data = torch.linspace(0.5, 1.5, 6)
        self.norm.bias.data = torch.linspace(-0.2, 0.3, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) * 0.4).softmax(dim=-1)
        x = weights @ v + x.flip(1)
        x = x - x.mean(1, keepdim=True).expand(-1, 5, -1)
        return self.head(x.permute(0, 2, 1).reshape(1, 6, 5).mean(-1))


class Functions(nn.Module):
    """Scalar functions as tables, StarReLU with its square, products and differences."""

    shape = (11,)

    def forward(self, x: Tensor) -> Tensor:
        parts = [functional.gelu(x), torch.sigmoid(x), torch.tanh(x), functional.silu(x)]
        total = 0.8944 * functional.relu(x) ** 2 - 0.4472
        for part in parts:
            total = total + part
        return (1 - total) * parts[1] + torch.exp(-x.abs())


class Maps(nn.Module):
    """Norms over feature maps, conv1d, concat and split, global pools, sums and maxima.

    Also a linear map of each row of a map, and rows of a constant in front of others.
    """

    shape = (4, 3, 5)

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.GroupNorm(1, 4)
        self.group = nn.GroupNorm(2, 4)
        self.row = nn.Conv1d(4, 4, 3, padding=1, groups=4)
        self.mix = nn.Conv1d(8, 3, 1)
        self.across = nn.Linear(5, 5)
        self.first = nn.Parameter(torch.linspace(-1.0, 1.0, 5))
        for norm in (self.layer, self.group):
            norm.weight.data = torch.tensor([0.7, -1.1, 1.3, 0.4])
            norm.bias.data = torch.tensor([0.1, -0.2, 0.0, 0.3])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(x, 1) - self.layer(x)
        first, second = self.group(x).split(2, dim=1)
        x = torch.cat([second, first], dim=1) + self.across(x)
        x = torch.cat([self.first.expand(1, 4, 1, 5), x[:, :, 1:]], dim=2)
        rows = self.row(x.flatten(2))
        mixed = self.mix(torch.cat([rows, x.flatten(2)], dim=1))
        return torch.cat([mixed.amax(-1), mixed.sum(-1), mixed.mean(-1)], dim=1)


class Pyramid(nn.Module):
    """Resizes by wires and by products, vectors over their lengths, one position of four axes."""

    shape = (4, 2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)
        self.outer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        smooth = functional.interpolate(x, size=(4, 7), mode="bilinear")
        x = functional.interpolate(functional.interpolate(x, scale_factor=2), (4, 7)) - smooth
        unit = functional.normalize(x.flatten(2), dim=-1)
        alone = functional.adaptive_avg_pool2d(x, 1).permute(0, 2, 3, 1)
        alone = self.outer(functional.gelu(self.inner(alone)))
        return torch.cat([alone.flatten(1), unit[:, :, 4]], dim=1)


class Rows(nn.Module):
    """Windows and rows of a map in the first axis: their functions, products, norms and means."""

    shape = (4, 2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.into, self.held = nn.Linear(4, 6), nn.Linear(3, 3)
        self.norm = nn.LayerNorm(3)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.into(x.permute(0, 2, 3, 1).reshape(2, 4, 4))
        first, second = rows.tanh().chunk(2, dim=-1)
        mixed = torch.sigmoid(first @ second.transpose(1, 2)) @ second
        windows = self.norm(mixed).reshape(2, 2, 2, 3).permute(0, 3, 1, 2)
        pooled = functional.avg_pool2d(windows, 2).flatten(1)
        return (self.held(pooled) * pooled + first.mean(1)).reshape(1, 6)


def adversarial(shape: tuple[int, ...], encoding: Encoding) -> Tensor:
    """Random values, the grid, every tie between two integers, extremes, zeros of both signs."""
    generator = torch.Generator().manual_seed(2)
    size = int(np.prod(shape))
    random = torch.randn(40, size, generator=generator)
    steps = torch.randint(-260, 260, (40, size), generator=generator)
    grid, ties = steps * encoding.lsb, (steps + 0.5) * encoding.lsb
    extremes = torch.tensor([1e6, -1e6, 0.0, -0.0, encoding.lsb / 2]).reshape(-1, 1).expand(5, size)
    signs = torch.randint(0, 2, (20, size), generator=generator) * 2 - 1
    return torch.cat([random, grid, ties, extremes, signs * 1e3]).reshape(-1, *shape)


WAYS = {
    "parallel": ("hls4ml", Hardware()),
    "stream": ("hls4ml", Hardware(interface="io_stream", backend="Vitis")),
    "rtl": ("rtl", Hardware("xcvu13p-flga2577-2-e", 5.0)),
}


@dataclass(frozen=True)
class Made:
    """A program lowered for an FPGA."""

    target: Target
    artifact: Artifact
    folder: Path

    def answers_as(self, program: Program, x: Tensor) -> bool:
        """Whether it gives every integer of the program."""
        found = self.target.run(self.artifact, self.folder, (x.numpy(),))
        assert found is not None
        return np.array_equal(found[0], program.run(x)[0].numpy())


Lowered = Callable[..., Made]


@pytest.fixture
def lowered(program_file: Callable[[Program], Path], tmp_path: Path) -> Lowered:
    """Lower a program by a target's name and hardware, into a folder of that name."""

    def lower(program: Program, name: str, hardware: Hardware, folder: str = "artifact") -> Made:
        target, where = targets.load(name, hardware), tmp_path / folder
        assert target.supports(program) == ()
        where.mkdir()
        return Made(target, target.lower(program, program_file(program), where), where)

    return lower


MINUTES = {
    ("rtl", Vision), ("rtl", Maps), ("stream", Tokens), ("parallel", Vision), ("rtl", Pyramid),
    ("stream", Pyramid), ("rtl", Rows), ("parallel", Rows), ("parallel", Maps),
}  # fmt: skip
"""Left to the slow tests: others show the same operators."""


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        pytest.param(
            way, kind, id=f"{way}-{kind.__name__}",
            marks=[pytest.mark.slow] if (way, kind) in MINUTES else [],
        )
        for way in WAYS
        for kind in (Vision, Tokens, Functions, Maps, Pyramid, Rows)
    ],
)  # fmt: skip
def test_every_integer_is_the_programs(
    kind: type[nn.Module],
    way: str,
    quantize_by: Callable[..., Program],
    lowered: Lowered,
) -> None:
    torch.manual_seed(0)
    samples = torch.randn(64, *kind.shape, generator=torch.Generator().manual_seed(3))
    # Free scales of additions in firmware, shared ones in RTL: both ways of rounding them.
    program = quantize_by(kind(), samples, "fixed8", align_additions=1.0 + (way == "rtl"))
    x = adversarial(kind.shape, next(iter(program.encodings.values())))
    assert program.run(x)[0].unique().numel() > 20
    made = lowered(program, *WAYS[way])
    assert made.answers_as(program, x)
    assert {op.achieved for op in made.target.audit(made.artifact, made.folder)} == {"fixed"}


class ManyReaders(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([functional.relu(x - 0.25 * i) for i in range(8)], dim=1)


def test_a_stream_with_too_many_readers_is_named(
    quantize_by: Callable[..., Program], lowered: Lowered
) -> None:
    program = quantize_by(ManyReaders(), torch.randn(32, 3), "fixed8")
    with pytest.raises(UnsupportedError, match="8 layers read it, hls4ml copies a stream 7 times"):
        lowered(program, *WAYS["stream"])


@pytest.mark.parametrize("way", [pytest.param("stream", marks=pytest.mark.slow), "rtl"])
def test_bits_by_layer_reach_the_hardware(
    way: str,
    quantize_by: Callable[..., Program],
    lowered: Lowered,
) -> None:
    torch.manual_seed(0)
    exceptions = (
        LayerException(match="qkv", weights=5, activations=12),
        LayerException(match="head", weights=3),
    )
    samples = torch.randn(64, *Tokens.shape)
    program = quantize_by(Tokens(), samples, "fixed8", exceptions=exceptions)
    bits = {name: e.bits for name, e in program.encodings.items()}
    assert bits["linear"] == 12
    x = adversarial(Tokens.shape, next(iter(program.encodings.values())))
    assert lowered(program, *WAYS[way]).answers_as(program, x)


KNOBS = {
    "resource": (Vision, Hardware(reuse=4, strategy="resource"), {"conv2d", "conv2d_1"}),
    "resource-stream": (
        Tokens, Hardware(reuse=4, strategy="resource", interface="io_stream", backend="Vitis"),
        {"linear", "linear_1"},
    ),
    "distributed": (Vision, Hardware(reuse=2, strategy="distributed_arithmetic"),
                    {"conv2d", "conv2d_1", "conv2d_2"}),
    "by-layer": (
        Tokens, Hardware(layers=(LayerKnobs("h*d", 4, "resource"),)), {"linear_1"},
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] if "-" in c else []) for c in KNOBS]
)
def test_knobs_change_how_it_is_built_and_not_what_it_computes(
    case: str,
    quantize_by: Callable[..., Program],
    lowered: Lowered,
) -> None:
    kind, hardware, noted = KNOBS[case]
    torch.manual_seed(0)
    program = quantize_by(kind(), torch.randn(64, *kind.shape), "fixed8")
    made = lowered(program, "hls4ml", hardware)
    assert set(made.artifact.facts["notes"]) == noted
    x = adversarial(kind.shape, next(iter(program.encodings.values())))
    assert made.answers_as(program, x)
    parameters = (made.folder / "project/firmware/parameters.h").read_text()
    words = {"resource": "nnet::resource", "distributed": "nnet::distributed_arithmetic"}
    assert words.get(case.split("-")[0], "nnet::resource") in parameters


def test_rtl_takes_a_strategy_by_layer_and_says_what_it_ignores(
    quantize_by: Callable[..., Program], lowered: Lowered
) -> None:
    torch.manual_seed(0)
    program = quantize_by(
        nn.Sequential(nn.Linear(16, 24), nn.Linear(24, 8)), torch.randn(40, 16), "fixed8"
    )
    operations = {}
    for name, hardware in {
        "latency": Hardware(), "resource": Hardware(strategy="resource", reuse=3),
        "first": Hardware(layers=(LayerKnobs("0", strategy="resource"),)),
    }.items():  # fmt: skip
        facts = lowered(program, "rtl", hardware, name).artifact.facts
        operations[name] = facts["operations"]
        assert set(facts["notes"]) == ({"reuse"} if hardware.reuse > 1 else set())
    assert len(set(operations.values())) == 3, operations


def test_rtl_is_built_once_for_its_outputs_and_its_latency(
    quantize_by: Callable[..., Program], lowered: Lowered, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    made = lowered(quantize_by(nn.Linear(5, 2), torch.randn(20, 5), "fixed8"), "rtl", Hardware())
    samples = np.ones((7, 5), np.float32)
    made.target.run(made.artifact, made.folder, (samples,))
    monkeypatch.setattr("edgemix.targets.rtl.target.answer_in_child", None)
    found = made.target.latency(made.artifact, made.folder, 1)
    assert found is not None
    assert (found.kind, found.runs, found.environment["interval"]) == ("simulated", 7, "1")
    assert found.p50_ms == pytest.approx(int(found.environment["cycles"]) * 10e-6)
    (made.folder / "project" / "rtl" / "model.v").write_text("// another design")
    with pytest.raises(TypeError):  # which is simulated again
        made.target.latency(made.artifact, made.folder, 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 40))
def test_the_nearest_reuse_factor_is_hls4mls_own(asked: int, inputs: int, outputs: int) -> None:
    from hls4ml.backends.fpga.fpga_backend import FPGABackend

    valid = FPGABackend.get_valid_reuse_factors(
        SimpleNamespace(_validate_reuse_factor=partial(FPGABackend._validate_reuse_factor, None)),
        inputs, outputs,
    )  # fmt: skip
    expected = FPGABackend.get_closest_reuse_factor(None, valid, asked)
    assert nearest_reuse(asked, inputs, outputs, beyond_inputs=True) == expected
    capped = [r for r in valid if r <= inputs]
    assert nearest_reuse(asked, inputs, outputs, beyond_inputs=False) in capped


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_batch_gives_an_empty_answer(
    way: str,
    quantize_by: Callable[..., Program],
    lowered: Lowered,
) -> None:
    program = quantize_by(nn.Linear(3, 2), torch.randn(20, 3), "fixed8")
    made = lowered(program, *WAYS[way])
    found = made.target.run(made.artifact, made.folder, (np.zeros((0, 3), np.float32),))
    assert found is not None
    assert found[0].shape == (0, 2)


@pytest.mark.parametrize("way", WAYS)
def test_two_lowerings_write_the_same_files(
    way: str,
    quantize_by: Callable[..., Program],
    lowered: Lowered,
) -> None:
    torch.manual_seed(0)
    program = quantize_by(
        nn.Sequential(nn.Linear(3, 2), nn.Sigmoid()), torch.randn(20, 3), "fixed8"
    )
    written = []
    for name in ("first", "second"):
        folder = lowered(program, *WAYS[way], name).folder
        project = sorted(p for p in (folder / "project").rglob("*") if p.is_file())
        assert len(project) >= 6
        written.append({p.relative_to(folder): p.read_bytes() for p in project})
    # Compiled simulators may carry the time and place of their making.
    first, second = ({k: v for k, v in w.items() if v[:4] != b"\x7fELF"} for w in written)
    assert first == second
