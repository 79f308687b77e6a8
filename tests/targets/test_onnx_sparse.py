"""Weights that were made mostly zero take less room in an ONNX file, and compute the same."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from torch import nn

from edgemix import proof, rewrites, sources, targets
from edgemix.program import Origin, Program
from edgemix.quantize.calibrate import calibrate
from edgemix.quantize.convert import quantize
from edgemix.quantize.prune.sparse import Pattern, sparsify
from edgemix.quantize.recipe import Recipe
from edgemix.targets.onnx.sparse import dense, shrink

SAMPLES = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))


@cache
def _sparse(zeros: str) -> Program:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(32, 96), nn.ReLU(), nn.Linear(96, 64), nn.Linear(64, 4)).eval()
    program = rewrites.standard(Program.trace(net, (SAMPLES[:1],), Origin("a test")))
    return sparsify(program, SAMPLES, Pattern.parse(zeros))


def _program(zeros: str, recipe: str) -> Program:
    program = _sparse(zeros)
    return quantize(program, calibrate(program, [SAMPLES]), Recipe.load(recipe))


@pytest.mark.parametrize(
    ("recipe", "zeros", "stored"),
    [("float32", "60%", 0), ("float32", "80%", 1), ("int8", "80%", 0), ("int8", "95%", 1)],
)
def test_zeros_shrink_the_file_where_places_cost_less(
    recipe: str, zeros: str, stored: int, program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program, target = _program(zeros, recipe), targets.load("onnx")
    artifact = target.lower(program, program_file(program), tmp_path)
    assert artifact.facts.get("sparse initializers", 0) == stored
    file = tmp_path / artifact.main
    graph = onnx.load(file).graph
    assert len(graph.sparse_initializer) == stored
    size = sum(len(s.SerializeToString()) for s in graph.sparse_initializer)
    dense(graph)
    weights = {t.name: t for t in graph.initializer if math.prod(t.dims) > 2048}
    if stored:
        assert size < 0.85 * sum(len(t.raw_data) for t in weights.values())
    (found,) = target.run(artifact, tmp_path, (SAMPLES.numpy(),)) or (None,)
    assert found is not None
    near = proof.compare(
        program.run(SAMPLES)[0].numpy(), found, program.output_encodings[0],
        target.promise(program),
    )  # fmt: skip
    assert near.passed, near.why
    if recipe == "int8":
        kernels = {op.op: op.achieved for op in target.audit(artifact, tmp_path)}
        assert set(kernels.values()) == {"integer"}, kernels


def test_other_constants_stay_as_every_runtime_reads_them(
    program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    net = nn.Linear(64, 64)
    with torch.no_grad():
        net.weight.copy_(torch.eye(64))
    program = Program.trace(net, (torch.zeros(1, 64),), Origin("a test"))
    artifact = targets.load("onnx").lower(program, program_file(program), tmp_path)
    assert "sparse initializers" not in artifact.facts
    assert not onnx.load(tmp_path / artifact.main).graph.sparse_initializer


def test_a_sparse_file_is_a_source_again(
    program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program = _program("95%", "int8")
    artifact = targets.load("onnx").lower(program, program_file(program), tmp_path)
    again = sources.load(str(tmp_path / artifact.main))
    torch.testing.assert_close(again.run(SAMPLES)[0], program.run(SAMPLES)[0])


@given(
    st.sampled_from(["float32", "float16", "int8"]), st.floats(0.0, 1.0),
    st.sampled_from([(2048,), (3, 1000), (64, 4, 3, 3), (1, 1, 4096)]), st.integers(0, 9),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_what_is_stored_sparse_is_read_back(
    kind: str, share: float, shape: tuple[int, ...], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    value = (rng.integers(-127, 128, shape) * (rng.random(shape) >= share)).astype(kind)
    model = onnx.helper.make_model(
        onnx.helper.make_graph([], "g", [], [], [numpy_helper.from_array(value, "w")])
    )
    before = model.ByteSize()
    count = int(np.count_nonzero(value))
    worth = count * (value.itemsize + 8) < value.nbytes
    assert shrink(model) == worth
    assert not worth or model.ByteSize() < before + 100
    dense(model.graph)
    (tensor,) = model.graph.initializer
    assert tensor.name == "w" and not model.graph.sparse_initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), value)


def test_places_may_be_given_axis_by_axis() -> None:
    values = numpy_helper.from_array(np.array([2.0, 3.0], np.float32), "w")
    places = numpy_helper.from_array(np.array([[0, 1], [2, 0]], np.int64), "at")
    sparse = onnx.helper.make_sparse_tensor(values, places, (3, 2))
    graph = onnx.helper.make_graph([], "g", [], [], sparse_initializer=[sparse])
    dense(graph)
    np.testing.assert_array_equal(
        numpy_helper.to_array(graph.initializer[0]), [[0, 2], [0, 0], [3, 0]]
    )
