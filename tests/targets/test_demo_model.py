"""One quantized program, four targets: the bars that the project promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from edgemix import data, proof, targets
from edgemix.program import Program
from edgemix.proof import Contract

BARS = {
    ("onnx", "int8"): Contract("lsb", 1, 0.999),
    ("onnx", "fixed8"): Contract("exact"),
    ("tflite", "int8"): Contract("lsb", 1, 0.99),
    ("tflite", "fixed8"): Contract("lsb", 1, 0.99),
    ("hls4ml", "fixed8"): Contract("exact"),
}


@pytest.mark.parametrize(("name", "recipe"), BARS, ids=["-".join(key) for key in BARS])
def test_the_artifact_keeps_its_contract_and_its_arithmetic(
    name: str,
    recipe: str,
    quantized: Callable[[str], Program],
    held_out: data.Data,
    program_file: Callable[[Program], Path],
    tmp_path: Path,
) -> None:
    program, target = quantized(recipe), targets.load(name)
    assert target.supports(program) == ()
    folder = tmp_path / "artifact"
    folder.mkdir()
    artifact = target.lower(program, program_file(program), folder)
    moved = tmp_path / "moved"
    folder.rename(moved)  # an artifact does not know where it was made
    shares: list[float] = []
    found = target.run(artifact, moved, (held_out.samples,), shares.append)
    assert found is not None
    assert shares == sorted(shares)
    assert shares[-1] <= 1.0
    expected = program.run(torch.from_numpy(held_out.samples))[0].numpy()
    fidelity = proof.compare(
        expected, found[0], program.output_encodings[0], BARS[name, recipe], labels=held_out.labels
    )
    assert fidelity.passed, fidelity
    assert fidelity.accuracy is not None
    assert fidelity.accuracy >= 0.985
    precision = target.audit(artifact, moved)
    assert len(precision) >= 18
    assert [op for op in precision if not op.kept] == []
    kinds = {op.achieved for op in precision}
    if name == "tflite":
        assert kinds == {"integer", "float between integers"}
        linear = [op for op in precision if op.op in ("CONV_2D", "FULLY_CONNECTED")]
        assert linear and {op.achieved for op in linear} == {"integer"}
    if name == "hls4ml":
        assert kinds == {"fixed"}
    if name == "onnx":
        assert sum(op.achieved == "integer" for op in precision) >= 17
    for path in moved.rglob("*"):
        if path.is_file():
            assert str(tmp_path).encode() not in path.read_bytes(), path


def test_core_ml_holds_int8_weights_and_activations(
    quantized: Callable[[str], Program], program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program, target = quantized("int8"), targets.load("coreml")
    artifact = target.lower(program, program_file(program), tmp_path)
    assert artifact.facts["compressed weights"] == {"constexpr_affine_dequantize": 11}
    kinds = artifact.facts["operations"]
    assert kinds["conv"] == 9
    assert kinds["softmax"] == 1
    assert kinds["quantize"] >= 20
    precision = target.audit(artifact, tmp_path)
    assert {op.achieved for op in precision} == {"float16 between integers"}
    assert artifact.inputs[0].dtype == "float32"


def test_hls4ml_refuses_free_scales_before_any_work(quantized: Callable[[str], Program]) -> None:
    findings = targets.load("hls4ml").supports(quantized("int8"))
    assert "is no power of two, nor are those of 26 other values" in str(findings[0])
    assert "quantize with the recipe fixed8" in str(findings[0])


def test_latency_is_measured_and_says_how(
    quantized: Callable[[str], Program], program_file: Callable[[Program], Path], tmp_path: Path
) -> None:
    program, target = quantized("int8"), targets.load("onnx")
    artifact = target.lower(program, program_file(program), tmp_path)
    latency = target.latency(artifact, tmp_path, 1)
    assert latency is not None
    assert (latency.kind, latency.threads) == ("measured", 1)
    assert np.all(np.diff([0, latency.p50_ms, latency.p90_ms, latency.p99_ms]) >= 0)
    assert targets.load("hls4ml").latency(artifact, tmp_path, 1) is None


def test_names_in_the_table_are_the_targets_own() -> None:
    for name in targets.TARGETS:
        assert targets.load(name).name == name
    with pytest.raises(targets.InputError, match="no target onx\n  try: did you mean onnx?"):
        targets.load("onx")
