"""Where Core ML runs a package: its own ``MLComputePlan`` on macOS, an expectation elsewhere.

Runs in a child process. On macOS the answer also lists where the expectation was wrong.
"""

from __future__ import annotations

import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemix.errors import InputError, ToolError
from edgemix.extras import need
from edgemix.targets.coreml.constraints import UNITS, Unit
from edgemix.targets.coreml.package import open_package
from edgemix.targets.coreml.placement import Placement, placements, remarks, summarize

_ON_MACOS = sys.platform == "darwin"
_UNITS: Mapping[str, Unit] = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}
"""By the class with which coremltools names a device."""

EXPECTATION = "documented constraints; no device was asked"
PLAN = "MLComputePlan"


@dataclass(frozen=True)
class Difference:
    """An operation that Core ML's plan places otherwise than was expected."""

    op: str
    name: str
    expected: tuple[Unit, ...]
    planned: tuple[Unit, ...]


def plan(request: Mapping[str, Any]) -> dict[str, Any]:
    """Place every operation of the package ``request["model"]``.

    The answer's ``kind`` is ``planned``, by Core ML on this Mac, or ``expected``; its placements
    are read back by :func:`restored`.
    """
    model = Path(request["model"])
    function = request.get("function", "main")
    package = open_package(model)
    expected = placements(package, function)
    found = _ask(model, function) if _ON_MACOS else expected
    return {
        "kind": "planned" if _ON_MACOS else "expected",
        "method": _method() if _ON_MACOS else EXPECTATION,
        "placements": [asdict(p) for p in found],
        "summary": asdict(summarize(found)),
        "remarks": [asdict(r) for r in remarks(package, function)],
        "differences": [asdict(d) for d in differences(expected, found)],
    }


def restored(answer: Mapping[str, Any]) -> tuple[Placement, ...]:
    """The placements of an answer that came as JSON."""
    return tuple(Placement(**{**p, "units": tuple(p["units"])}) for p in answer["placements"])


def planned(compute_plan: Any, source: str, function: str = "main") -> tuple[Placement, ...]:
    """A ``coremltools.models.compute_plan.MLComputePlan`` as placements, constants left out.

    Raises:
        InputError: the model is no ML Program, or lacks the function.
        ToolError: the plan names a device that edgemix does not know.
    """
    program = compute_plan.model_structure.program
    if program is None:
        raise InputError("the compute plan is not of an ML Program")
    if function not in program.functions:
        names = ", ".join(sorted(program.functions)) or "none"
        raise InputError(f"the compute plan has no function {function!r}, but {names}")
    operations = _operations(program.functions[function].block)
    return tuple(_placement(compute_plan, op, source) for op in operations)


def differences(
    expected: Sequence[Placement], found: Sequence[Placement]
) -> tuple[Difference, ...]:
    """Operations of which expectation and plan disagree whether the Neural Engine takes them.

    Only names that both have are compared: Core ML's compiler renames some operations.
    """
    known = {p.name: p.units for p in expected}
    return tuple(
        Difference(p.op, p.name, known[p.name], p.units)
        for p in found
        if p.name in known and ("Neural Engine" in known[p.name]) != ("Neural Engine" in p.units)
    )


def _method() -> str:
    return f"{PLAN}, macOS {platform.mac_ver()[0]}, all compute units"


def _ask(model: Path, function: str) -> tuple[Placement, ...]:
    ct = need("coremltools", extra="coreml")
    utils = need("coremltools.models.utils", extra="coreml")
    plans = need("coremltools.models.compute_plan", extra="coreml")
    with tempfile.TemporaryDirectory(prefix="edgemix-") as folder:
        try:
            compiled = utils.compile_model(str(model), str(Path(folder) / "model.mlmodelc"))
            found = plans.MLComputePlan.load_from_path(
                path=compiled, compute_units=ct.ComputeUnit.ALL
            )
        except (RuntimeError, ValueError) as error:
            raise ToolError(
                f"Core ML gave no compute plan of {model.name}: {error}",
                do="use macOS 14.4 or later, and open the model in Xcode if it fails there too",
            ) from error
        if found is None:
            raise ToolError(f"Core ML gave no compute plan of {model.name}, and no reason")
        return planned(found, _method(), function)


def _operations(block: Any) -> Iterator[Any]:
    for op in block.operations:
        name = _type(op)
        if name != "const" and not name.startswith("constexpr_"):
            yield op
        for inner in op.blocks:
            yield from _operations(inner)


def _type(op: Any) -> str:
    """Without the opset in which it was defined: ``ios18.conv``."""
    return str(op.operator_name).rpartition(".")[2]


def _placement(compute_plan: Any, op: Any, source: str) -> Placement:
    usage = compute_plan.get_compute_device_usage_for_mlprogram_operation(op)
    cost = compute_plan.get_estimated_cost_for_mlprogram_operation(op)
    takes = {_unit(d) for d in usage.supported_compute_devices} if usage else set()
    preferred = usage.preferred_compute_device if usage else None
    return Placement(
        op=_type(op),
        name=str(op.outputs[0].name) if op.outputs else "",
        units=tuple(u for u in UNITS if u in takes),
        why=PLAN if usage else f"{PLAN} says nothing of it",
        source=source,
        preferred=None if preferred is None else _unit(preferred),
        cost=None if cost is None else float(cost.weight),
    )


def _unit(device: Any) -> Unit:
    name = type(device).__name__
    if name not in _UNITS:
        raise ToolError(f"the compute plan names a device of type {name}, unknown to edgemix")
    return _UNITS[name]
