"""Programs against themselves when roundings go the other way."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgemix import rewrites, sources
from edgemix.program import Origin, Program
from edgemix.proof import Contract, compare
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.recipe import Recipe
from edgemix.stray import explained, strayed


class Doubling(nn.Module):
    """A logistic map, so many times over: each doubles a rounding."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        x = x * x / 16
        for _ in range(self.times):
            x = 4 * x * (1 - x)
        return x


def test_real_numbers_stray_as_far_as_a_model_blows_a_rounding_up() -> None:
    x = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    off = []
    for times in (1, 20):
        program = Program.trace(Doubling(times), (x[:1],), Origin("test"))
        off.append(float((strayed(program, x)[0] - program.run(x)[0]).abs().max()))
    assert off[0] < 1e-6 < 1e-3 < off[1]


def test_a_missed_contract_tells_what_the_program_keeps_of_it_against_itself() -> None:
    torch.manual_seed(0)
    layers = [m for _ in range(8) for m in (nn.Linear(16, 16), nn.LayerNorm(16), nn.GELU())]
    x = torch.randn(40, 16)
    net = nn.Sequential(*layers).eval()
    program = rewrites.standard(Program.trace(net, (x[:1],), Origin("test")))
    coded = quantize(program, calibrate(program, [x]), Recipe.load("int8"))
    expected = coded.run(x)[0].numpy()
    (encoding,) = coded.output_encodings
    assert encoding is not None
    off = expected + 2 * encoding.lsb * (np.arange(16) == 3)
    for level, share, told in (("lsb", 0.999, True), ("lsb", 0.9, False), ("exact", 1.0, False)):
        contract = Contract(level, 1 if level == "lsb" else 0, share)
        near = compare(expected, off, encoding, contract)
        why = explained(near, coded, x, expected, "onnx").why
        assert near.passed == (share == 0.9)
        assert why.startswith(near.why) and ("of the program's own" in why) == told
        assert ("--contract onnx=decisions@99%" in why) == told


def test_a_contract_that_the_program_keeps_is_just_missed() -> None:
    net = nn.Linear(4, 3)
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    program = Program.trace(net, (x[:1],), Origin("test"))
    coded = quantize(program, calibrate(program, [x]), Recipe.load("int8"))
    expected = coded.run(x)[0].numpy()
    (encoding,) = coded.output_encodings
    assert encoding is not None
    near = compare(expected, expected + 2 * encoding.lsb, encoding, Contract("lsb", 1, 0.999))
    assert explained(near, coded, x, expected, "onnx") == near


def test_sequences_stray_step_by_step_through_their_states() -> None:
    program = rewrites.standard(sources.load("edgemix.models.tiny:linear_transformer", step=True))
    torch.manual_seed(0)
    x = torch.randn(3, 12, *program.inputs[0].shape[1:])
    coded = quantize(program, calibrate(program, [x]), Recipe.load("int8"))
    for some in (program, coded):
        rolled = some.rollout(x)
        expected = (*rolled.outputs, *rolled.states)
        found = strayed(some, x)
        assert [f.shape for f in found] == [e.shape for e in expected]
        off = [float((f - e).abs().max()) for f, e in zip(found, expected, strict=True)]
        bound = 0.1 if some.quantized else 1e-5
        largest = [bound * float(e.abs().max()) for e in expected]
        assert max(off) > 0 and all(o <= m for o, m in zip(off, largest, strict=True))
