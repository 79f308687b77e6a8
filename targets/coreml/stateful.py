"""A program with states as a package whose states Core ML holds itself: ``StateType``, iOS 18.

Core ML's own states are float16: eleven bits. The package with explicit states beside it keeps all
sixteen; this one saves the copies between the app and the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from edgemix import graph as g
from edgemix.exporting import export, quiet
from edgemix.program import Program
from edgemix.targets.coreml.audit import operations
from edgemix.targets.coreml.decompositions import table

MAIN = "stateful.mlpackage"


class _Holding(nn.Module):
    """The graph with its states as buffers that a call changes."""

    def __init__(self, module: GraphModule, program: Program) -> None:
        super().__init__()
        self.step = g.flat(module)
        self._outputs = len(program.outputs)
        self._names = [f"state_{state.name}" for state in program.states]
        for name, state in zip(self._names, program.states, strict=True):
            self.register_buffer(name, state.start())

    def forward(self, *inputs: Tensor) -> Any:
        found = self.step(*inputs, *(getattr(self, name) for name in self._names))
        for name, value in zip(self._names, found[self._outputs :], strict=True):
            getattr(self, name).copy_(value)
        outputs = found[: self._outputs]
        return outputs[0] if self._outputs == 1 else outputs


def write(module: GraphModule, program: Program, path: Path, ct: Any) -> dict[str, Any]:
    """Write the package; what it is, for the artifact's facts.

    Args:
        module: the lowered graph, with explicit states; it is changed.
        program: what it was made of.
        path: the package.
        ct: coremltools.
    """
    examples = tuple(torch.zeros(spec.shape) for spec in program.inputs)
    with quiet():
        exported = export(_Holding(module, program).eval(), examples).run_decompositions(table())
        passes = ct.PassPipeline.DEFAULT
        # It fails on several states in coremltools 9; it only reorders, for fewer copies.
        passes.remove_passes({"common::canonicalize_inplace_pattern"})
        model = ct.convert(
            exported,
            pass_pipeline=passes,
            minimum_deployment_target=ct.target.iOS18,
            inputs=[ct.TensorType(name=s.name, shape=s.shape) for s in program.inputs],
            outputs=[ct.TensorType(name=s.name) for s in program.outputs],
        )
        model.save(str(path))
    kinds = operations(path)
    facts: dict[str, Any] = {
        "package": path.name,
        "deployment target": "iOS 18, macOS 15",
        "states": f"{kinds.get('read_state', 0)} read, {kinds.get('write_state', 0)} written, "
        "float16",
    }
    started = [s.name for s in program.states if any(s.initial)]
    if started:
        facts["fill before the first step"] = ", ".join(started)
    return facts
