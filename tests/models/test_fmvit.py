"""FMViT's parts: branches become one map each, attention is to few positions, sizes are checked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgemix import graph as g
from edgemix import rewrites
from edgemix.errors import InputError
from edgemix.models.branches import DepthwiseBranches, GroupedBranches
from edgemix.models.mixers.frequency_mixing import FrequencyMixing
from edgemix.models.mixers.reduced_attention import ReducedAttention
from edgemix.models.presets import fmvit
from edgemix.program import Origin, Program


def test_the_tiny_model_gives_what_its_program_gives_with_one_convolution_for_all_branches() -> (
    None
):
    module, (example,) = fmvit.tiny()
    assert sum(p.numel() for p in module.parameters()) < 10_000
    program = Program.trace(module, (example,), Origin("tiny"))
    after = rewrites.standard(program)
    convolutions = [
        sum(n.target in g.CONVOLUTION for n in g.float_ops(p.module())) for p in (program, after)
    ]
    branches = sum(isinstance(m, nn.Conv2d) for m in module.modules())
    joined = sum("Branches" in type(m).__name__ for m in module.modules())
    assert convolutions == [branches, branches - joined]
    x = torch.randn(3, *example.shape[1:], generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = module(x)
    assert float(expected.std(0).min()) > 1e-2  # it looks at its input
    torch.testing.assert_close(after.run(x)[0], expected, rtol=1e-4, atol=1e-4)


def test_attention_to_a_constant_map_is_a_map_of_channels() -> None:
    module = ReducedAttention(4, heads=2, pool=2).eval()
    x = torch.randn(2, 4, 1, 1).expand(2, 4, 6, 4)
    torch.testing.assert_close(module(x), module.proj(module.values(x)), rtol=1e-4, atol=1e-5)


def test_attention_sees_where_a_window_is_but_not_what_moves_inside_of_it() -> None:
    module = ReducedAttention(4, heads=1, pool=2).eval()
    x = torch.randn(1, 4, 4, 4)
    moved = x.clone()
    moved[..., :2, :2] = x[..., :2, :2].flip(-1)
    torch.testing.assert_close(module(moved)[..., 2:], module(x)[..., 2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: GroupedBranches(6, 8, (1, 4)), r"6 and 8 channels in \[1, 4\] groups"),
        (lambda: GroupedBranches(8, 8, (2, 4)), r"8 and 8 channels in \[2, 4\] groups"),
        (lambda: DepthwiseBranches(4, 4, 5), "a kernel of 5 or its half of 2 has no middle"),
        (lambda: ReducedAttention(6, heads=4), "6 channels do not divide into 4 heads"),
        (lambda: FrequencyMixing(12), "12 channels do not divide into half and 2 equal even"),
    ],
)
def test_impossible_sizes_are_refused(build: type[nn.Module], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build()
