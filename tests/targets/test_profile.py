"""What the runtimes' own profilers tell of the demo model, and of what is broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgemix import evidence, profiling, targets
from edgemix.errors import InputError, ToolError
from edgemix.latency.profile import Node, Profile
from edgemix.latency.work import works
from edgemix.program import Program
from edgemix.report.html import render_profile
from edgemix.targets.base import Artifact, Profiling
from edgemix.targets.onnx import profile as onnx
from edgemix.targets.tflite import profile as tflite
from edgemix.targets.tflite.litert import BUILTIN, DELEGATED, Event


def written(folder: Path, program: Program, artifact: Artifact) -> None:
    target = targets.load("onnx")
    zeros = np.zeros((1, *program.inputs[0].shape[1:]), np.float32)
    evidence.write_evidence(
        folder, target, artifact, program, None, (zeros,), (zeros,), None, target.promise(program)
    )


@pytest.fixture(scope="module", params=["onnx", "tflite"])
def deployed(
    request: pytest.FixtureRequest,
    quantized: Callable[[str], Program],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Program, Artifact]:
    """A target's folder beside its program."""
    program, target = quantized("int8"), targets.load(request.param)
    out = tmp_path_factory.mktemp(request.param)
    program.save(out / profiling.PROGRAM)
    folder = out / request.param
    folder.mkdir()
    artifact = target.lower(program, out / profiling.PROGRAM, folder)
    written(folder, program, artifact)
    return folder, program, artifact


@pytest.fixture(scope="module")
def found(deployed: tuple[Path, Program, Artifact]) -> Profile:
    return profiling.run(profiling.Asked(deployed[0], runs=12, device="rpi4"), lambda _: None)


def test_all_of_the_time_is_somebodys(found: Profile) -> None:
    assert found.runs == 12
    assert sum(o.share for o in found.operators) + found.overhead == pytest.approx(1)
    # LiteRT counts whole microseconds: on a fast machine none of the demo's operators takes one.
    assert 0 <= found.overhead <= 1 and found.unprofiled_ms > 0
    assert list(found.operators) == sorted(found.operators, key=lambda o: -o.ms)


def test_every_product_is_found_in_the_model(
    found: Profile, deployed: tuple[Path, Program, Artifact]
) -> None:
    expected = {w.where.node for w in works(deployed[1]) if w.multiplications}
    named = [o.node for o in found.operators if o.node]
    assert len(named) == len(set(named))
    assert expected <= set(named)
    (stem,) = (o for o in found.operators if o.node == "conv2d")
    assert stem.where.startswith("stages.0.0, metaformer.py:")


def test_operators_are_those_of_the_artifact(
    found: Profile, deployed: tuple[Path, Program, Artifact]
) -> None:
    folder, _, artifact = deployed
    types = {o.op for o in found.operators if o.node}
    if artifact.target == "onnx":
        assert types <= {
            f"{integer}{op.op}"
            for op in targets.load("onnx").audit(artifact, folder)
            for integer in ("", "Q", "QLinear")
        }
    else:
        assert types <= {op.op for op in targets.load("tflite").audit(artifact, folder)}


def test_the_estimate_is_shared_out(found: Profile) -> None:
    assert "Raspberry Pi 4" in found.estimate
    told = sum(o.estimated for o in found.operators if o.estimated is not None)
    assert found.estimated_elsewhere is not None
    assert 0 <= found.estimated_elsewhere < 0.5 < told < 1


def test_an_estimate_of_another_runtime_says_so(
    deployed: tuple[Path, Program, Artifact],
) -> None:
    found = profiling.run(profiling.Asked(deployed[0], runs=1, device="iphone13"), lambda _: None)
    assert " as Core ML runs it, " in found.estimate
    with pytest.raises(InputError, match="no latency can be estimated"):
        profiling.run(profiling.Asked(deployed[0], device="host"), lambda _: None)


def test_the_page_shows_the_worst(found: Profile) -> None:
    page = render_profile(found)
    assert page.count("<svg") == 1 and "estimated share" in page
    assert found.operators[0].name in page and "no operator" in page


def test_another_program_beside_it_is_not_believed(
    deployed: tuple[Path, Program, Artifact], float_program: Program, tmp_path: Path
) -> None:
    folder, program, artifact = deployed
    copy = tmp_path / folder.name
    copy.mkdir()
    (copy / artifact.main).write_bytes((folder / artifact.main).read_bytes())
    written(copy, program, artifact)
    float_program.save(tmp_path / profiling.PROGRAM)
    with pytest.raises(InputError, match="is not known: it has no estimate"):
        profiling.run(profiling.Asked(copy, device="rpi4"), lambda _: None)
    unplaced = profiling.run(profiling.Asked(copy, runs=2), lambda _: None)
    assert {o.where for o in unplaced.operators} == {""}


@pytest.mark.parametrize(
    ("name", "instead"),
    [("hls4ml", "edgemix synth"), ("rtl", "edgemix synth"), ("coreml", "Xcode"),
     ("coreai", "Xcode")],
)  # fmt: skip
def test_where_there_is_no_profiler(
    name: str, instead: str, float_program: Program, tmp_path: Path
) -> None:
    (tmp_path / "model").write_text("nothing")
    made = Artifact(name, float_program.digest, "model", (), (), {})
    written(tmp_path, float_program, made)
    with pytest.raises(InputError, match="operator by operator") as raised:
        profiling.run(profiling.Asked(tmp_path), lambda _: None)
    assert raised.value.do is not None and instead in raised.value.do


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (profiling.Asked(Path("app.mlpackage")), "operator by operator where Core ML"),
        (profiling.Asked(Path("bare.onnx"), device="rpi4"), "is not known: it has no estimate"),
        (profiling.Asked(Path("empty")), "holds no artifact of edgemix"),
    ],
)
def test_what_cannot_be_profiled(
    asked: profiling.Asked, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("app.mlpackage", "empty"):
        Path(folder).mkdir()
    Path("bare.onnx").write_bytes(b"never read")
    with pytest.raises(InputError, match=message):
        profiling.run(asked, lambda _: None)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_broken_model(name: str, tmp_path: Path) -> None:
    model = tmp_path / f"model.{name}"
    model.write_bytes(b"no model")
    target = targets.load(name)
    assert isinstance(target, Profiling)
    with pytest.raises(ToolError, match=f"cannot run .*model.{name}"):
        target.profile(model, 1, 4)


def event(name: str, ts: int, dur: int, op: str | None = None) -> dict[str, object]:
    args = {} if op is None else {"op_name": op}
    return {"ph": "X", "cat": "Node", "name": name, "ts": ts, "dur": dur, "args": args}


RUN = [
    event("model_run", 0, 20),
    event("conv_token_1_kernel_time", 1, 4, "QLinearConv"),
    event("loop_kernel_time", 6, 10, "Loop"),
    event("body_kernel_time", 7, 3, "Add"),
]


def later(ts: int) -> list[dict[str, object]]:
    return [{**e, "ts": int(str(e["ts"])) + ts} for e in RUN]


def test_the_last_runs_of_a_trace() -> None:
    trace = json.dumps([*later(100), *RUN, {"ph": "M"}, *later(50)])
    operators, runs = onnx.read(trace, 2, {"conv": 3, "loop": 4})
    assert [(o.name, o.op, o.node) for o in operators] == [
        ("conv_token_1", "QLinearConv", 3), ("loop", "Loop", 4),
    ]  # fmt: skip
    assert [(r.total_ms, r.ms) for r in runs] == [(0.02, (0.004, 0.01))] * 2


@pytest.mark.parametrize(
    "trace",
    ["", "[", "{}", "3", "null", "[3]", '[{"ph": "X"}]', json.dumps([{**RUN[0], "ts": "a"}, RUN[1]]),
     json.dumps([RUN[0], {**RUN[1], "args": {}}]), json.dumps(RUN)],
)  # fmt: skip
def test_a_garbled_trace(trace: str) -> None:
    with pytest.raises(ToolError, match="ONNX Runtime's trace"):
        onnx.read(trace, 2, {})


NODES = (Node("PAD"), Node("CONV_2D", 9), Node("SOFTMAX"), Node("RESHAPE"), Node("ADD"))
EVENTS = (
    Event("Invoke", 1, 20, 0, 0),
    Event("Convolution (NHWC, QC8) IGEMM", DELEGATED, 7, 0, 0),
    Event("SOFTMAX", BUILTIN, 5, 2, 0),
    Event("Add (ND)", DELEGATED, 3, 0, 0),
    Event("Invalid Unary Op", DELEGATED, 1, 1, 0),
)


def test_delegated_operators_are_found_between_the_others() -> None:
    operators, runs = tflite.read([EVENTS, EVENTS], NODES)
    assert [(o.op, o.node) for o in operators] == [
        ("CONV_2D", 1), ("SOFTMAX", 2), ("ADD", 4), ("Invalid Unary Op", None),
    ]  # fmt: skip
    assert [(r.total_ms, r.ms) for r in runs] == [(0.02, (0.007, 0.005, 0.003, 0.001))] * 2


def test_runs_that_cannot_be_compared() -> None:
    for other in (EVENTS[:-1], EVENTS[1:], ()):
        with pytest.raises(ToolError, match="different lists"):
            tflite.read([EVENTS, other], NODES)
    with pytest.raises(InputError, match="loops or branches"):
        tflite.read([(*EVENTS, replace(EVENTS[2], graph=1))], NODES)
