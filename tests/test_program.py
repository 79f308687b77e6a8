"""Programs: tracing, running, saving, and where their nodes come from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from edgemix import graph as g
from edgemix.errors import InputError
from edgemix.program import Origin, Program


class Branching(nn.Module):
    """Control flow that depends on data."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1 if x.sum() > 0 else x - 1


class Counting(nn.Module):
    """A buffer that changes with every call."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + self.calls


def test_running_is_what_the_module_computes(float_program: Program) -> None:
    from edgemix.models.demo import create

    module, _ = create()
    x = torch.rand(7, 1, 8, 8)
    with torch.no_grad():
        one_by_one = torch.cat([module(x[i : i + 1]) for i in range(7)])
    assert torch.equal(float_program.run(x)[0], one_by_one)


def test_batch_zero_and_odd_strides(float_program: Program) -> None:
    assert float_program.run(torch.zeros(0, 1, 8, 8))[0].shape == (0, 10)
    x = torch.rand(3, 1, 8, 8)
    last = x.to(memory_format=torch.channels_last)
    flipped = x.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(float_program.run(x)[0], float_program.run(last)[0])
    assert torch.equal(float_program.run(x)[0], float_program.run(flipped)[0])


def test_inputs_of_another_kind_are_refused(float_program: Program) -> None:
    with pytest.raises(InputError, match=r"samples of shape \(1, 9, 8\)\n  try: give samples of"):
        float_program.run(torch.rand(1, 1, 9, 8))
    with pytest.raises(InputError, match=r"input x is torch.float64\n  try: give float32"):
        float_program.run(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    with pytest.raises(InputError, match="2 inputs were given, not 1"):
        float_program.run(torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8))


@pytest.mark.parametrize("recipe", ["float", "int8", "fixed8"])
def test_saved_and_loaded_it_is_bit_identical(
    recipe: str,
    float_program: Program,
    quantized: Callable[[str], Program],
    program_file: Callable[[Program], Path],
) -> None:
    program = float_program if recipe == "float" else quantized(recipe)
    path = program_file(program)
    again = Program.load(path)
    assert again.digest == program.digest
    assert (again.inputs, again.outputs, again.history) == (
        program.inputs, program.outputs, program.history,
    )  # fmt: skip
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(again.run(x)[0], program.run(x)[0])
    first = path.read_bytes()
    program.save(path)
    assert path.read_bytes() == first


def test_the_digest_sees_a_single_weight(
    float_program: Program, program_file: Callable[[Program], Path]
) -> None:
    copy = Program.load(program_file(float_program))
    name, weight = next(iter(copy.graph.state_dict.items()))
    copy.graph.state_dict[name] = nn.Parameter(weight + 1e-6, requires_grad=False)
    assert copy.digest != float_program.digest


class Strided(nn.Module):
    """A single number with a stride of two."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.ones(2)[::2])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.factor


def test_the_digest_takes_a_number_of_any_stride() -> None:
    first, second = Strided(), Strided()
    second.factor = torch.ones(1)
    digests = {
        Program.trace(m, (torch.zeros(1, 3),), Origin("test")).digest for m in (first, second)
    }
    assert len(digests) == 1


def test_nodes_know_their_module_and_line_also_after_quantizing(
    float_program: Program, quantized: Callable[[str], Program]
) -> None:
    for program in (float_program, quantized("fixed8")):
        places = [g.where(n) for n in g.float_ops(program.module())]
        scaled = [w for w in places if w.node.startswith("mul")]
        # The recipe fixed8 splits the softmax, which ends in a product of its own.
        products = 2 if program.quantized else 1
        assert [w.module for w in scaled] == ["stages.1.2.mixer"] * products
        assert str(scaled[0].source).startswith("attention.py:")


def test_a_model_that_cannot_be_traced_says_why() -> None:
    with pytest.raises(InputError, match="torch.export cannot take this model"):
        Program.trace(Branching(), (torch.rand(2),), Origin("test"))


class Nested(nn.Module):
    def forward(self, x: torch.Tensor) -> dict[str, object]:
        return {"sum": x + 1, "both": (x * 2, [x * 3])}


def test_outputs_in_one_another_come_side_by_side() -> None:
    x = torch.rand(1, 3)
    program = Program.trace(Nested(), (x,), Origin("test"))
    assert [spec.name for spec in program.outputs] == ["output_0", "output_1", "output_2"]
    for found, factor in zip(program.run(x)[1:], (2, 3), strict=True):
        assert torch.equal(found, x * factor)


def test_an_exported_file_with_nested_outputs_is_refused() -> None:
    exported = torch.export.export(Nested(), (torch.rand(1, 3),))
    with pytest.raises(InputError, match="side by side, not in one another"):
        Program.from_exported(exported, Origin("test.pt2"))


def test_a_model_that_changes_its_buffers_is_refused() -> None:
    with pytest.raises(InputError, match="changes its own buffer calls"):
        Program.trace(Counting(), (torch.rand(2),), Origin("test"))
