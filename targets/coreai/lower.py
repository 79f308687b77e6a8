"""Program → ``model.aimodel``. Runs in a child process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.fx import GraphModule

from edgemix.exporting import export, quiet
from edgemix.extras import need, versions
from edgemix.graph import aten
from edgemix.program import Program
from edgemix.targets.base import Artifact, plain_bindings
from edgemix.targets.coreai.audit import operations
from edgemix.targets.coreai.decompositions import table
from edgemix.targets.coreai.quantizers import Quantizers, fit
from edgemix.targets.coreai.windows import open_windows
from edgemix.targets.results import own_results

MAIN = "model.aimodel"
_INTEGERS = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)


def lower(request: Mapping[str, Any]) -> dict[str, Any]:
    """Write the model; the answer is the Artifact as JSON.

    Inputs, outputs and states travel as real numbers, of states all sixteen bits.
    """
    program = Program.load(Path(request["program"]))
    path = Path(request["folder"]) / MAIN
    with quiet():
        converter = need("coreai_torch", extra="coreai").TorchConverter
        made = converter(mode=converter.Mode.RELEASE)  # the other one writes stack traces
        exported = export(prepared(program), program.example()).run_decompositions(table())
        Quantizers.of(exported).teach(made)
        made.add_exported_program(
            exported,
            input_names=[spec.name for spec in program.takes],
            output_names=[spec.name for spec in program.gives],
        )
        made.to_coreai().save_asset(path, _description(program))
    artifact = Artifact(
        target="coreai",
        program=program.digest,
        main=MAIN,
        **plain_bindings(program),
        toolchain=versions("torch", "coreai-torch", "coreai-core"),
        facts={"deployment target": "iOS 27, macOS 27", "operations": operations(path)},
    )
    return artifact.to_json()


def _description(program: Program) -> Any:
    told = need("coreai.runtime", extra="coreai").AIModelAssetMetadata()
    told.model_description = f"edgemix {program.digest[:12]} from {program.origin.source}"
    told.set_custom("edgemix.version", versions("edgemix")["edgemix"])
    told.set_custom("edgemix.recipe", program.recipe)
    told.set_custom("edgemix.program", program.digest)
    return told


def prepared(program: Program) -> GraphModule:
    """The program's graph in operators that coreai-torch lowers to what they are."""
    module = program.module()
    open_windows(module)
    _whole_casts(module)
    fit(module)  # behind those that ask for shapes, which its nodes do not have yet
    own_results(module, lambda graph, x: graph.call_function(aten.clone.default, (x,)))
    module.recompile()
    return module


def _whole_casts(module: GraphModule) -> None:
    """Cut fractions off before a cast to integers: Core AI drops a cast there and back."""
    for node in list(module.graph.nodes):
        if node.target not in (aten._to_copy.default, aten.to.dtype):
            continue
        source = node.args[0]
        if source.meta["val"].is_floating_point() and node.meta["val"].dtype in _INTEGERS:
            with module.graph.inserting_before(node):
                whole = module.graph.call_function(aten.trunc.default, (source,))
            node.args = (whole, *node.args[1:])
