"""A PReLU of one slope is a leaky ReLU."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgemix.graph import op_name
from edgemix.program import Origin, Program
from edgemix.rewrites.base import apply
from edgemix.rewrites.plain_slopes import PlainSlopes


@pytest.mark.parametrize(("slopes", "becomes"), [(1, "leaky_relu"), (3, "prelu")])
def test_one_slope_is_a_number_and_slopes_of_channels_stay(slopes: int, becomes: str) -> None:
    module, x = nn.PReLU(slopes, init=-0.3), torch.randn(1, 3)
    before = Program.trace(module, (x,), Origin("slopes"))
    after = apply(before, PlainSlopes())
    names = {op_name(n) for n in after.module().graph.nodes if n.op == "call_function"}
    assert names == {becomes}
    many = torch.randn(50, 3)
    torch.testing.assert_close(after.run(many)[0], before.run(many)[0], rtol=0, atol=1e-7)
