"""Residual branches that go as a whole, and what the others make up for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgemix import proof, rewrites, sources
from edgemix.batched import outputs
from edgemix.diagnosis import multiply_accumulates
from edgemix.errors import InputError
from edgemix.program import Origin, Program, StateSpec
from edgemix.quantize.prune.blocks import Branch, branches, drop_branches
from edgemix.quantize.prune.lockstep import Lockstep


class _Block(nn.Module):
    def __init__(self, dim: int, gain: float, scale: float = 1.0) -> None:
        super().__init__()
        self.expand, self.reduce = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.scale = nn.Parameter(torch.full((dim,), scale))
        with torch.no_grad():
            self.reduce.weight.mul_(gain)
            self.reduce.bias.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.scale * x + self.reduce(nn.functional.gelu(self.expand(x)))
        return result


class _Model(nn.Module):
    """Of three branches the second adds next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 8)
        self.blocks = nn.Sequential(_Block(8, 1.0), _Block(8, 1e-3, 1.1), _Block(8, 1.0))
        self.last = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(self.blocks(self.first(x)))
        return result


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return rewrites.standard(Program.trace(_Model(), (torch.randn(1, 6),), Origin("a test")))


def test_branches_are_found_with_what_only_they_need(program: Program) -> None:
    found = branches(program.module())
    assert [b.where.module for b in found] == [f"blocks.{i}.reduce" for i in range(3)]
    assert len({b.work for b in found}) == 1
    assert not found[0].nodes & found[1].nodes


def test_the_one_that_adds_least_goes(program: Program) -> None:
    x = torch.randn(64, 6)
    small, gone = drop_branches(program, x, 1)
    assert [b.where.module for b in gone] == ["blocks.1.reduce"]
    assert multiply_accumulates(small) == multiply_accumulates(program) - 2 * 8 * 16
    sqnr = proof.sqnr_db(program.run(x)[0], small.run(x)[0])
    assert sqnr is not None and sqnr > 40


def test_layers_left_make_up_for_neighbours_that_went(program: Program) -> None:
    x = torch.randn(256, 6)
    small, gone = drop_branches(program, x, 2)
    assert len(gone) == 2
    held_out = torch.randn(64, 6)
    module = program.module()
    nodes = {n.name: n for n in module.graph.nodes}
    for branch in gone:
        total = nodes[branch.sum]
        total.replace_all_uses_with(total.args[branch.stream])
    module.graph.eliminate_dead_code()
    bare = program.with_module(module)
    wanted = program.run(held_out)[0]
    fitted, plain = (proof.sqnr_db(wanted, p.run(held_out)[0]) for p in (small, bare))
    assert fitted is not None and plain is not None and fitted > plain + 3


def test_all_may_go(program: Program) -> None:
    small, gone = drop_branches(program, torch.randn(32, 6), 3)
    assert len(gone) == 3
    assert branches(small.module()) == ()


def test_more_than_there_are_is_refused(program: Program) -> None:
    with pytest.raises(InputError, match="4 residual branches cannot go: this model has 3"):
        drop_branches(program, torch.randn(32, 6), 4)


def test_a_model_beside_itself_stays_as_it_is(program: Program) -> None:
    pair = Lockstep(program, program, torch.randn(64, 6), lambda _, value: value)
    pair.run(lambda _: None)
    x = torch.randn(16, 6)
    assert torch.allclose(pair.result().run(x)[0], program.run(x)[0], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "before", "after"), [("mamba_backbone", 2, 1), ("lmuformer", 4, 3), ("tcn", 3, 3)]
)
def test_states_go_with_the_branch_that_alone_reads_them(
    name: str, before: int, after: int
) -> None:
    program = rewrites.standard(sources.load(f"edgemix.models.tiny:{name}", step=True))
    torch.manual_seed(0)
    shape = program.inputs[0].shape[1:]
    small, gone = drop_branches(program, torch.randn(16, 12, *shape), 1)
    assert [len(p.states) for p in (program, small)] == [before, after]
    assert {s.name for s in small.states} <= {s.name for s in program.states}
    assert multiply_accumulates(small) < multiply_accumulates(program)
    x = torch.randn(8, 12, *shape)
    masked = outputs(program, x, lambda module: _past(module, gone))
    wanted = program.run(x)[0]
    fitted, plain = (proof.sqnr_db(wanted, y) for y in (small.run(x)[0], masked))
    assert fitted is not None and plain is not None and fitted >= plain - 0.5


def test_a_state_that_others_read_stays() -> None:
    class Shared(nn.Module):
        """A mean that runs along, which a branch and the last layer read."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.branch, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(8, 2)

        def forward(self, x: Tensor, held: Tensor) -> tuple[Tensor, Tensor]:
            x = self.first(x)
            mean = 0.5 * held + 0.5 * x
            y = x + self.branch(mean)
            return self.last(torch.cat([y, mean], 1)), mean

    torch.manual_seed(0)
    state = StateSpec("held", (1, 4), fed_by="mean")
    traced = Program.trace(
        Shared(), (torch.zeros(1, 4), torch.zeros(1, 4)), Origin("a test"), states=(state,)
    )
    program = rewrites.standard(traced)
    small, _ = drop_branches(program, torch.randn(8, 6, 4), 1)
    assert len(small.states) == 1
    assert multiply_accumulates(small) == multiply_accumulates(program) - 16


def _past(module: GraphModule, gone: tuple[Branch, ...]) -> None:
    nodes = {n.name: n for n in module.graph.nodes}
    for branch in gone:
        total = nodes[branch.sum]
        total.replace_all_uses_with(total.args[branch.stream])
    module.recompile()
