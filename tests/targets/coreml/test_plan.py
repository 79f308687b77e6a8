"""Core ML's own plan, from recorded answers in coremltools' own classes; no Mac is needed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgemix.errors import InputError, ToolError
from edgemix.exporting import quiet
from edgemix.targets.coreml import plan as room
from edgemix.targets.coreml.placement import Placement, placements, summarize
from edgemix.targets.coreml.plan import Difference, plan, planned, restored

with quiet():
    import coremltools as ct
    from coremltools.converters.mil.mil import Builder as mb
    from coremltools.converters.mil.mil import types
    from coremltools.models import compute_device, compute_plan, utils

Record = dict[str, Any]
CPU, GPU, ENGINE = "MLCPUComputeDevice", "MLGPUComputeDevice", "MLNeuralEngineComputeDevice"

RECORDED: Record = {
    "main": [
        {"operator": "const", "output": "conv_weight"},
        {"operator": "constexpr_lut_to_dense", "output": "weight"},
        {
            "operator": "ios18.conv", "output": "y", "cost": 0.5,
            "preferred": ENGINE, "supported": [CPU, GPU, ENGINE],
        },
        {
            "operator": "ios18.sin", "output": "z", "cost": 0.25,
            "preferred": ENGINE, "supported": [CPU, ENGINE],
        },
        {
            "operator": "while_loop", "output": "looped", "cost": 0.125,
            "preferred": CPU, "supported": [CPU],
            "blocks": [
                [
                    {"operator": "const", "output": "one"},
                    {
                        "operator": "ios17.add", "output": "sum", "cost": 0.125,
                        "preferred": GPU, "supported": [GPU, CPU],
                    },
                ]
            ],
        },
        {"operator": "ios16.reshape", "output": "flat"},
    ]
}  # fmt: skip
"""As MLComputePlan answers: operators with their opsets, constants without a device."""


class Proxy:
    """In place of ``libcoremlpython``, which is there on macOS only."""

    def __init__(self, record: Record | None) -> None:
        self.known: dict[int, Record] = {}
        program = None
        if record is not None:
            functions = {
                name: compute_plan.MLModelStructureProgramFunction([], self.block(ops))
                for name, ops in record.items()
            }
            program = compute_plan.MLModelStructureProgram(functions)
        self.model_structure = compute_plan.MLModelStructure(None, program, None)

    def block(self, record: list[Record]) -> Any:
        ops = [self.operation(op) for op in record]
        return compute_plan.MLModelStructureProgramBlock([], ops, [])

    def operation(self, record: Record) -> Any:
        value_type = compute_plan.MLModelStructureProgramValueType()
        made = compute_plan.MLModelStructureProgramOperation(
            inputs={},
            operator_name=record["operator"],
            outputs=[
                compute_plan.MLModelStructureProgramNamedValueType(record["output"], value_type)
            ],
            blocks=[self.block(b) for b in record.get("blocks", [])],
            __proxy__=None,
        )
        self.known[id(made)] = record
        return made

    def get_compute_device_usage_for_mlprogram_operation(self, operation: Any) -> Any:
        record = self.known[id(operation)]
        if "supported" not in record:
            return None
        return compute_plan.MLComputePlanDeviceUsage(
            device(record["preferred"]), [device(d) for d in record["supported"]]
        )

    def get_estimated_cost_for_mlprogram_operation(self, operation: Any) -> Any:
        record = self.known[id(operation)]
        return compute_plan.MLComputePlanCost(record["cost"]) if "cost" in record else None


def device(name: str) -> Any:
    kind = getattr(compute_device, name, None) or type(name, (), {})
    return object.__new__(kind)


def answer(record: Record | None) -> Any:
    """An ``MLComputePlan`` that answers what was recorded."""
    made = object.__new__(compute_plan.MLComputePlan)
    made.__proxy__ = Proxy(record)
    return made


def test_a_plan_is_read_as_placements() -> None:
    found = planned(answer(RECORDED), "Core ML")
    every, none = ("Neural Engine", "GPU", "CPU"), "MLComputePlan says nothing of it"
    assert found == (
        Placement("conv", "y", every, "MLComputePlan", "Core ML", "Neural Engine", 0.5),
        Placement(
            "sin", "z", ("Neural Engine", "CPU"), "MLComputePlan", "Core ML", "Neural Engine", 0.25
        ),
        Placement("while_loop", "looped", ("CPU",), "MLComputePlan", "Core ML", "CPU", 0.125),
        Placement("add", "sum", ("GPU", "CPU"), "MLComputePlan", "Core ML", "GPU", 0.125),
        Placement("reshape", "flat", (), none, "Core ML"),
    )


def test_a_plan_is_summed_up_by_preferred_units_and_costs() -> None:
    summary = summarize(planned(answer(RECORDED), "Core ML"))
    assert summary.operations == 5
    assert summary.takes == {"Neural Engine": 2 / 5, "GPU": 2 / 5, "CPU": 4 / 5}
    assert summary.likely == {"Neural Engine": 2 / 5, "GPU": 1 / 5, "CPU": 1 / 5}
    assert summary.cost == {"Neural Engine": 0.75, "GPU": 0.125, "CPU": 0.125}
    assert summary.switches == 3
    assert [o.names for o in summary.obstacles] == [("looped",), ("sum",), ("flat",)]


def test_a_plan_without_the_function_or_of_another_kind_is_an_error() -> None:
    with pytest.raises(InputError, match="the compute plan has no function 'step', but main"):
        planned(answer(RECORDED), "Core ML", "step")
    with pytest.raises(InputError, match="the compute plan is not of an ML Program"):
        planned(answer(None), "Core ML")


def test_an_unknown_device_is_an_error() -> None:
    op = {"operator": "relu", "output": "y", "preferred": CPU, "supported": ["MLNewDevice"]}
    with pytest.raises(ToolError, match="names a device of type MLNewDevice, unknown to edgemix"):
        planned(answer({"main": [op]}), "Core ML")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A convolution, which is expected everywhere, and a sine, which is not."""
    target = ct.target.iOS18

    def program(x: Any) -> Any:
        y = mb.conv(x=x, weight=np.ones((4, 4, 1, 1), np.float16), name="y")
        return mb.sin(x=y, name="z")

    specs = [mb.TensorSpec((1, 4, 8, 32), dtype=types.fp16)]
    path = tmp_path / "model.mlpackage"
    with quiet():
        ct.convert(
            mb.program(input_specs=specs, opset_version=target)(program),
            minimum_deployment_target=target,
            compute_precision=ct.precision.FLOAT32,
            skip_model_load=True,
        ).save(str(path))
    return path


def test_without_a_mac_the_answer_is_an_expectation(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_ON_MACOS", False)
    found = json.loads(json.dumps(plan({"model": str(model)})))
    assert (found["kind"], found["method"]) == (
        "expected",
        "documented constraints; no device was asked",
    )
    assert [p.units for p in restored(found)] == [("Neural Engine", "GPU", "CPU"), ("GPU", "CPU")]
    assert restored(found) == placements(room.open_package(model))
    assert found["summary"]["switches"] == 1 and found["summary"]["cost"] is None
    assert found["differences"] == []


@pytest.fixture
def on_macos(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Any]]:
    """Core ML's answers, and what it was asked."""

    def use(*, compiles: Any = None, plans: Any = None) -> list[Any]:
        asked: list[Any] = []

        def compile_model(model: str, destination: str) -> str:
            asked.append((model, destination))
            if isinstance(compiles, Exception):
                raise compiles
            return destination

        def load_from_path(path: str, compute_units: Any) -> Any:
            asked.append((path, compute_units))
            return plans

        monkeypatch.setattr(room, "_ON_MACOS", True)
        monkeypatch.setattr(room.platform, "mac_ver", lambda: ("15.1", ("", "", ""), "arm64"))
        monkeypatch.setattr(utils, "compile_model", compile_model)
        monkeypatch.setattr(compute_plan.MLComputePlan, "load_from_path", load_from_path)
        return asked

    return use


def test_on_macos_core_ml_is_asked(model: Path, on_macos: Callable[..., list[Any]]) -> None:
    asked = on_macos(plans=answer(RECORDED))
    found = json.loads(json.dumps(plan({"model": str(model)})))
    (source, compiled), (planned_from, units) = asked
    assert source == str(model)
    assert compiled.endswith("/model.mlmodelc") and not Path(compiled).parent.exists()
    assert (planned_from, units) == (compiled, ct.ComputeUnit.ALL)
    assert found["kind"] == "planned"
    assert found["method"] == "MLComputePlan, macOS 15.1, all compute units"
    assert restored(found) == planned(answer(RECORDED), found["method"])
    assert found["summary"] == json.loads(json.dumps(asdict(summarize(restored(found)))))


def test_where_the_expectation_was_wrong_is_told(
    model: Path, on_macos: Callable[..., list[Any]]
) -> None:
    on_macos(plans=answer(RECORDED))
    (found,) = plan({"model": str(model)})["differences"]
    wrong = Difference("sin", "z", ("GPU", "CPU"), ("Neural Engine", "CPU"))
    assert Difference(**found) == wrong


def test_what_core_ml_says_when_it_fails_is_passed_on(
    model: Path, on_macos: Callable[..., list[Any]]
) -> None:
    on_macos(compiles=RuntimeError("MLComputePlan is only available on macOS >= 14.4"))
    with pytest.raises(ToolError) as error:
        plan({"model": str(model)})
    assert error.value.message == (
        "Core ML gave no compute plan of model.mlpackage: "
        "MLComputePlan is only available on macOS >= 14.4\n"
        "  try: use macOS 14.4 or later, and open the model in Xcode if it fails there too"
    )
    on_macos(plans=None)
    with pytest.raises(ToolError, match="gave no compute plan of model.mlpackage, and no reason"):
        plan({"model": str(model)})
