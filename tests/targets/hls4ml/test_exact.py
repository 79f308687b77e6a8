"""C simulation against the program, bit for bit, on inputs chosen to break it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from edgemix import graph as g
from edgemix import targets
from edgemix.encoding import Encoding
from edgemix.errors import UnsupportedError
from edgemix.program import Program
from edgemix.targets.fpga import tables
from edgemix.targets.fpga.precision import bounds, exact_type, product_sum
from edgemix.targets.hls4ml import support


class Vision(nn.Module):
    """Strided and padded windows, depthwise, pooling on odd shapes, additions on several grids."""

    shape = (3, 5, 7)

    def __init__(self) -> None:
        super().__init__()
        self.window = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.point = nn.Conv2d(4, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.window(x))
        x = x + 0.1 * self.depthwise(x)
        x = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
        x = functional.max_pool2d(self.point(x), 2, 1)
        return x.flatten(1)


class Tokens(nn.Module):
    """Attention with its softmax, chunks, flips, broadcasts, means that divide by five."""

    shape = (5, 6)

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(6, 18)
        self.head = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        weights = (q @ k.transpose(-2, -1) * 0.4).softmax(dim=-1)
        x = weights @ v + x.flip(1)
        x = x - x.mean(1, keepdim=True).expand(-1, 5, -1)
        return self.head(x.permute(0, 2, 1).reshape(1, 6, 5).mean(-1))


class Functions(nn.Module):
    """Scalar functions as tables."""

    shape = (11,)

    def forward(self, x: Tensor) -> Tensor:
        parts = [functional.gelu(x), torch.sigmoid(x), torch.tanh(x), functional.silu(x)]
        total = functional.relu(x)
        for part in parts:
            total = total + part
        return total * 0.37 + torch.exp(-x.abs())


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


@pytest.mark.parametrize("kind", [Vision, Tokens, Functions])
@pytest.mark.parametrize("align", [1.0, 2.0])
def test_every_integer_is_the_programs(
    kind: type[nn.Module],
    align: float,
    quantize_by: Callable[..., Program],
    program_file: Callable[[Program], Path],
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    samples = torch.randn(64, *kind.shape, generator=torch.Generator().manual_seed(3))
    program = quantize_by(kind(), samples, "fixed8", align_additions=align)
    target = targets.load("hls4ml")
    assert target.supports(program) == ()
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    x = adversarial(kind.shape, next(iter(program.encodings.values())))
    found = target.run(artifact, folder, (x.numpy(),))
    assert found is not None
    expected = program.run(x)[0].numpy()
    assert np.unique(expected).size > 20
    assert np.array_equal(found[0], expected)
    assert {op.achieved for op in target.audit(artifact, folder)} == {"fixed"}


class Sorting(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.cumsum(x, -1)


class Wide(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4000, 1001)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_an_operator_without_a_layer_is_named(quantize_by: Callable[..., Program]) -> None:
    program = quantize_by(Sorting(), torch.randn(8, 5), "fixed8")
    (finding,) = targets.load("hls4ml").supports(program)
    assert str(finding).startswith("cumsum (test_exact.py:")
    assert "hls4ml has no layer for cumsum" in finding.why


def test_a_model_that_would_explode_is_refused_with_its_size(
    quantize_by: Callable[..., Program],
) -> None:
    program = quantize_by(Wide(), torch.randn(4, 4000), "fixed8")
    (finding,) = targets.load("hls4ml").supports(program)
    assert finding.why.startswith("unrolled it needs 4,004,000 multiply-accumulates")
    assert f"{support.MAX_MULTIPLY_ACCUMULATES:,}" in finding.why


@pytest.mark.parametrize(("length", "refused"), [(128, False), (129, True)])
def test_a_softmax_too_long_for_float32_is_refused(
    length: int, refused: bool, quantize_by: Callable[..., Program]
) -> None:
    program = quantize_by(nn.Softmax(-1), torch.randn(8, length), "fixed8")
    findings = targets.load("hls4ml").supports(program)
    assert [("no longer divides exactly" in f.why) for f in findings] == [True] * refused


def test_every_quotient_up_to_the_limit_rounds_in_float32_as_exactly() -> None:
    dividend = torch.arange(256)
    for total in range(1, support.MAX_NORMALIZED_SUM, 7):
        found = torch.round(dividend.float() * 2**-8 / (torch.tensor(float(total)) * 2**-8) * 256)
        doubled = 2 * dividend * 256
        floor, rest = doubled // (2 * total), doubled % (2 * total)
        up = (rest > total) | ((rest == total) & (floor % 2 == 1))
        assert torch.equal(found.long(), floor + up.long()), total


def test_a_float_program_is_refused(float_program: Program) -> None:
    (finding,) = targets.load("hls4ml").supports(float_program)
    assert finding.remedy == "quantize with the recipe fixed8"


def test_a_table_entry_too_near_to_a_tie_is_refused(quantize_by: Callable[..., Program]) -> None:
    program = quantize_by(Functions(), torch.randn(64, 11), "fixed8")
    module = program.module()
    node = next(n for n in g.float_ops(module) if g.op_name(n) == "sigmoid")
    given = Encoding.per_tensor(2**-4)
    exact = torch.sigmoid(torch.tensor(3 * 2**-4, dtype=torch.float64)).item()
    # A scale that puts this entry 1e-5 steps beside a tie.
    wanted = Encoding((exact / (100.5 + 1e-5),), (0,))
    with pytest.raises(UnsupportedError, match="too near to a rounding tie"):
        tables.table(module, node, given, wanted)


def test_accumulators_hold_the_worst_case_and_no_bit_more_than_needed() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        inputs = Encoding.per_tensor(2.0 ** generator.integers(-9, 2), -128).fixed_point()
        assert inputs is not None
        weights = generator.integers(-127, 128, (3, 9)) * 2.0 ** generator.integers(-9, 2)
        biases = generator.integers(-999, 999, 3) * 2.0 ** generator.integers(-12, 1)
        accumulator = product_sum(inputs, weights, biases)
        low, high = bounds(accumulator)
        worst = np.abs(weights).sum(1) * bounds(inputs)[1] + np.abs(biases)
        assert high >= worst.max() - 2.0**-accumulator.fraction
        assert low <= -worst.max()
        assert worst.max() * 4 > high


def test_constants_get_the_narrowest_type() -> None:
    fixed = exact_type(np.array([0.75, -2.0, 0.0]))
    assert (fixed.width, fixed.integer) == (4, 2)
    assert exact_type(np.zeros(3)).width == 2
    assert exact_type(np.array([96.0])).fraction == -5
