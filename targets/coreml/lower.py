"""Program → ``model.mlpackage``. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemix.extras import need, versions
from edgemix.grids import wide_grids
from edgemix.program import Program, export, quiet
from edgemix.targets.base import Artifact, plain_bindings
from edgemix.targets.composites import whole_softmax
from edgemix.targets.constants import real_biases
from edgemix.targets.coreml import stateful
from edgemix.targets.coreml.audit import constexpr_types, operations

MAIN = "model.mlpackage"


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the package; the answer is the Artifact as JSON.

    Inputs and outputs stay float: Core ML takes no int8 there. The deployment target is iOS 17,
    the first with quantized activations.
    """
    ct = need("coremltools", extra="coreml")
    program = Program.load(Path(request["program"]))
    path = Path(request["folder"]) / MAIN
    module = program.module()
    joined = 0 if program.states else whole_softmax(module)
    if program.states:
        wide_grids(module)
    real_biases(module)
    module.recompile()
    with quiet():
        exported = export(module, program.example()).run_decompositions({})
        model = ct.convert(
            exported,
            minimum_deployment_target=ct.target.iOS17,
            # A state of sixteen bits does not fit a float16.
            compute_precision=ct.precision.FLOAT32 if program.states else None,
            inputs=[ct.TensorType(name=s.name, shape=s.shape) for s in program.takes],
            outputs=[ct.TensorType(name=s.name) for s in program.gives],
        )
        model.short_description = f"edgemix {program.digest[:12]} from {program.origin.source}"
        model.save(str(path))
    native: dict[str, Any] = {}
    if program.states:
        held = stateful.write(module, program, path.with_name(stateful.MAIN), ct)
        native = {"states held by Core ML": held}
    kinds = operations(path)
    softmax = f"{joined} put together again" if joined else "whole"
    artifact = Artifact(
        target="coreml",
        program=program.digest,
        main=MAIN,
        **plain_bindings(program),
        toolchain=versions("torch", "coremltools"),
        facts={
            "deployment target": "iOS 17, macOS 14",
            **({} if program.states else {"softmax": softmax}),
            "compressed weights": constexpr_types(path),
            "operations": kinds,
            **native,
        },
    )
    return artifact.to_json()
