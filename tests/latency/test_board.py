"""What travels to a board: it runs there, and tells what the machine was."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgemix.latency import board
from edgemix.latency.board import machine, runtimes, sampling
from edgemix.latency.board.machine import NOT_IDLE
from edgemix.latency.host import measure

SIDE = sorted(Path(board.__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", SIDE, ids=lambda p: p.name)
def test_it_needs_python_3_8_and_nothing_else(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert {a.name.partition(".")[0] for a in node.names} <= sys.stdlib_module_names
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert (node.module or "").partition(".")[0] in sys.stdlib_module_names
    # The names of what it evaluates when it is loaded are as old, too.
    assert "removeprefix" not in path.read_text() and "strict=" not in path.read_text()


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Writes files of a made-up /proc and /sys."""
    monkeypatch.setattr(machine, "PROC", tmp_path / "proc")
    monkeypatch.setattr(machine, "SYS", tmp_path / "sys")

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    return write


Files = Callable[[str, str], None]


def test_others_are_seen_core_by_core(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files("proc/stat", "cpu  9 9 9 9\ncpu0 100 0 0 100 0 0 0 0\ncpu1 0 0 0 10 0 0 0 0\nctxt 5\n")
    later = "cpu  9 9 9 9\ncpu0 160 10 10 110 10 0 0 0\ncpu1 0 0 0 110 0 0 0 0\n"
    monkeypatch.setattr(machine.time, "sleep", lambda _: files("proc/stat", later))
    assert machine.busy_cores() == {0: 0.8, 1: 0.0}


def test_a_machine_at_work_is_said_to_be(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "getloadavg", lambda: (3.5, 1.0, 1.0))
    monkeypatch.setattr(machine.os, "cpu_count", lambda: 4)
    told = machine.conditions({0: 0.8, 1: 0.0})
    assert told[NOT_IDLE] == "other processes took 0.8 of 2 cores before the start"
    # The load counts an earlier measurement, too: what was seen decides.
    assert NOT_IDLE not in machine.conditions({0: 0.1, 1: 0.05})
    assert machine.conditions({})[NOT_IDLE] == "the load was 3.50 on 4 cores before the start"
    assert told["load"] == "3.50" and "governor" not in told
    files("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n")
    assert machine.conditions({})["governor"] == "powersave"


def test_the_strongest_then_the_quietest_cores_are_taken(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 4})
    chosen = machine._choose
    assert chosen(1, {0: 0.9, 1: 0.31, 2: 0.0}) == (2,)
    assert chosen(9, {}) == (0, 1, 2, 3, 4)
    for core, strength in enumerate((400, 400, 1024, 1024, 1024)):
        files(f"sys/devices/system/cpu/cpu{core}/cpu_capacity", f"{strength}\n")
    assert chosen(2, {}) == (2, 3)
    files("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2-3\n")
    assert chosen(2, {}) == (2, 4)
    assert chosen(4, {}) == (0, 2, 3, 4)


@pytest.mark.skipif(sys.platform != "linux", reason="pinning is Linux's")
def test_a_thread_that_ends_while_it_is_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    monkeypatch.setattr(machine, "_tasks", lambda: [gone.pid, os.getpid()])
    before = os.sched_getaffinity(0)
    with machine.pinned(1, {}) as cores:
        assert len(cores) == 1
    assert os.sched_getaffinity(0) == before


def test_threads_are_pinned_for_the_block_alone() -> None:
    before = os.sched_getaffinity(0)
    with machine.pinned(1, {}) as cores:
        assert os.sched_getaffinity(0) == set(cores) and len(cores) == 1
    assert os.sched_getaffinity(0) == before


def test_energy_is_summed_over_packages(files: Files) -> None:
    assert machine.energy() == {} and machine.energy_each({}, 5) == {}
    for zone, name in (("0", "package-0"), ("1", "package-1"), ("0:0", "core"), ("2", "psys")):
        files(f"sys/class/powercap/intel-rapl:{zone}/name", name + "\n")
        files(f"sys/class/powercap/intel-rapl:{zone}/energy_uj", "4000000\n")
        files(f"sys/class/powercap/intel-rapl:{zone}/max_energy_range_uj", "5000000\n")
    before = machine.energy()
    assert len(before) == 2
    files("sys/class/powercap/intel-rapl:0/energy_uj", "4500000\n")
    files("sys/class/powercap/intel-rapl:1/energy_uj", "1000000\n")  # wrapped
    assert machine.joules(before, machine.energy()) == 2.5
    told = machine.energy_each(before, 1000)["energy"]
    assert told == "2.5 mJ an inference, of the whole CPU package (RAPL)"


def test_sampling_ends_by_time_and_by_count(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[int, float]] = []
    sampling.sample(lambda: None, 0.01, lambda t, share: heard.append((len(t), share)))
    assert heard[-1][1] == 1.0 and sum(n for n, _ in heard) >= sampling.MIN_RUNS
    monkeypatch.setattr(sampling, "LONGEST_S", 0.2)
    slow: list[int] = []
    sampling.sample(lambda: sampling.time.sleep(0.003), 0.1, lambda t, _: slow.extend(t))
    assert sampling.ENOUGH <= len(slow) < sampling.MIN_RUNS


def test_a_measurement_here_counts_every_call() -> None:
    calls: list[int] = []
    found = measure(lambda: calls.append(1), method="a list grows", threads=1, seconds=0.05)
    kept, _, rest = found.environment["samples left out"].partition(" of ")
    total = int(rest.partition(",")[0])
    assert total + found.warmup == len(calls)
    assert found.runs == total - int(kept)
    assert found.environment["pinned to"].startswith("core")
    assert float(found.environment["load"]) >= 0


def write_onnx(path: Path, shape: list[Any], kind: int = TensorProto.FLOAT) -> Path:
    x, y = (helper.make_tensor_value_info(n, kind, shape) for n in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def test_onnx_takes_inputs_of_other_types(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", [2, 3], TensorProto.INT64)
    (case,) = runtimes.cases(str(model), 1)
    (found,) = case.call()  # type: ignore[misc]
    assert found.dtype == np.int64 and found.shape == (2, 3)


def test_a_free_dimension_is_refused(tmp_path: Path) -> None:
    model = write_onnx(tmp_path / "m.onnx", ["n", 3])
    with pytest.raises(runtimes.Missing, match=r"the input x is tensor\(float\) of shape \['n', 3"):
        list(runtimes.cases(str(model), 1))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(runtimes, "_there", lambda name: name == "numpy")
    with pytest.raises(runtimes.Missing, match="no Python package onnxruntime") as error:
        list(runtimes.cases("m.onnx", 1))
    assert error.value.do == "pip install onnxruntime, there"
    with pytest.raises(runtimes.Missing, match="no runtime for TFLite"):
        list(runtimes.cases("m.tflite", 1))
    with pytest.raises(runtimes.Missing, match=r"no runtime is known for m.zip"):
        runtimes.count("a/m.zip")


def test_core_ml_needs_a_mac() -> None:
    if sys.platform != "darwin":
        with pytest.raises(runtimes.Missing, match="Core ML runs on macOS alone"):
            list(runtimes.cases("m.mlpackage", 1))


class _Op:
    def __init__(self, name: str, unit: str, *inner: _Op) -> None:
        self.operator_name, self.unit = name, unit
        self.blocks = [SimpleNamespace(operations=list(inner))] if inner else []


def stand_in(calls: list[tuple[str, Any]]) -> dict[str, ModuleType]:
    """A coremltools with just what the board's side asks of it."""
    units = {
        name: name for name in ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
    }  # by name, as an Enum
    operations = [
        _Op("const", "CPU"), _Op("ios18.conv", "NeuralEngine"), _Op("ios18.relu", "NeuralEngine"),
        _Op("ios18.while_loop", "CPU", _Op("ios17.add", "GPU"), _Op("constexpr_lut", "CPU")),
    ]  # fmt: skip
    array = SimpleNamespace(multiArrayType=SimpleNamespace(shape=[1, 4]))
    array.WhichOneof = lambda _: "multiArrayType"

    class MLModel:
        def __init__(self, path: str, compute_units: str) -> None:
            self.unit = compute_units

        def get_spec(self) -> Any:
            given = SimpleNamespace(name="x", type=array)
            return SimpleNamespace(description=SimpleNamespace(input=[given], state=["h"]))

        def make_state(self) -> str:
            return "state"

        def get_compiled_model_path(self) -> str:
            return "model.mlmodelc"

        def predict(self, feed: dict[str, Any], state: Any = None) -> None:
            calls.append((self.unit, (feed["x"].shape, state)))

    class MLComputePlan:
        def __init__(self) -> None:
            block = SimpleNamespace(operations=operations)
            program = SimpleNamespace(functions={"main": SimpleNamespace(block=block)})
            self.model_structure = SimpleNamespace(program=program)

        @classmethod
        def load_from_path(cls, path: str, compute_units: str) -> MLComputePlan:
            if compute_units == "CPU_ONLY":
                raise RuntimeError("needs macOS 14.4")
            return cls()

        def get_compute_device_usage_for_mlprogram_operation(self, op: _Op) -> Any:
            device = type(f"ML{op.unit}ComputeDevice", (), {})()
            return SimpleNamespace(preferred_compute_device=device)

    ct, models, plans = (
        ModuleType("coremltools" + n) for n in ("", ".models", ".models.compute_plan")
    )
    ct.ComputeUnit, ct.__version__, ct.models = units, "9.0", models  # type: ignore[attr-defined]
    models.MLModel, plans.MLComputePlan = MLModel, MLComputePlan  # type: ignore[attr-defined]
    return {m.__name__: m for m in (ct, models, plans)}


def test_core_ml_is_asked_for_each_choice_of_units(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, Any]] = []
    for name, module in stand_in(calls).items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(runtimes, "_there", lambda _: True)
    monkeypatch.setattr(runtimes, "sys", SimpleNamespace(platform="darwin"))
    assert runtimes.count("m.mlpackage/") == 4
    found = list(runtimes.cases("m.mlpackage", 1))
    for case in found:
        case.call()
    assert [c.method for c in found] == [
        "MLModel.predict, all compute units", "MLModel.predict, CPU and Neural Engine",
        "MLModel.predict, CPU and GPU", "MLModel.predict, CPU",
    ]  # fmt: skip
    assert [c[0] for c in calls] == ["ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY"]
    assert calls[0][1] == ((1, 4), "state")
    assert found[0].facts["operations"] == (
        "25% CPU, 25% GPU, 50% Neural Engine of 4, by MLComputePlan"
    )
    assert found[3].facts["operations"] == "no MLComputePlan: needs macOS 14.4"
